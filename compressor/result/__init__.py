"""A build: the small network with its evidence, and what is kept until all of it is there."""
