"""From a PyTorch module to a `Program`: `torch.export`, decompositions, free axes of inputs."""
