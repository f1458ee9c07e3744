"""Two mlps in turn, one across the channels and one across the tokens.

    [tokens, width] - norm - transpose - mlp - transpose - + - norm - mlp - +
                                         over tokens                  over width

    tokens_up[0] ~ tokens_down[1]     free
    up[0] ~ down[1]                   free
    tokens_up[1], tokens_down[0]      tied to the image's patches: those cannot go
    the stream                        embed ~ norms ~ up[1] ~ down[0]: one group, behind layer norms

A linear layer mixes the last axis, whatever that axis is; the transpose says which one it is.
"""

from torch import Tensor, nn

from models._random import normal, seeded


class Layer(nn.Module):
    """[batch, tokens, width] -> the same"""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.tokens_norm = nn.LayerNorm(width)
        self.tokens_up = nn.Linear(tokens, 4 * tokens)
        self.tokens_down = nn.Linear(4 * tokens, tokens)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        across = self.tokens_norm(x).transpose(1, 2)
        x = x + self.tokens_down(self.gelu(self.tokens_up(across))).transpose(1, 2)
        return x + self.down(self.gelu(self.up(self.norm(x))))


class Mixer(nn.Module):
    """A small MLP-Mixer. [batch, 3, 32, 32] -> [batch, 10]"""

    def __init__(self, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, kernel_size=8, stride=8)
        self.layers = nn.Sequential(*(Layer(16, width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.embed(image).flatten(2).transpose(1, 2)
        return self.classify(self.norm(self.layers(x)).mean(dim=1))


def mixer() -> nn.Module:
    return seeded(Mixer, 17)


def example_inputs() -> Tensor:
    return normal(2, 3, 32, 32)
