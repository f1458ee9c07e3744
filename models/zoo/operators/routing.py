"""Indices: experts, look-ups, masks and everything that depends on positions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .frames import WIDTH, of_family, picture, sentence, vector


class Expert(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))


class DenseExperts(nn.Module):
    """All experts run, and are weighed."""

    def __init__(self) -> None:
        super().__init__()
        self.route = nn.Linear(WIDTH, 4)
        self.experts = nn.ModuleList(Expert() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        share = self.route(x).softmax(-1)
        found = torch.stack([expert(x) for expert in self.experts], -1)
        return x + (found * share.unsqueeze(-2)).sum(-1)


class StackedExperts(nn.Module):
    """The experts' weights in one tensor; the two best of each token count (top-k, scatter)."""

    def __init__(self) -> None:
        super().__init__()
        self.route = nn.Linear(WIDTH, 4)
        self.raise_ = nn.Parameter(torch.zeros(4, WIDTH, 64))
        self.lower = nn.Parameter(torch.zeros(4, 64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        best, which = self.route(x).softmax(-1).topk(2, dim=-1)
        share = torch.zeros(*x.shape[:2], 4).scatter(-1, which, best)
        y = F.silu(torch.einsum("bnc,ecf->bnef", x, self.raise_))
        return x + torch.einsum("bnef,efc,bne->bnc", y, self.lower, share)


class SparseExperts(nn.Module):
    """Each expert gets the tokens that chose it (Switch, Mixtral)."""

    def __init__(self) -> None:
        super().__init__()
        self.route = nn.Linear(WIDTH, 4)
        self.experts = nn.ModuleList(Expert() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        best, which = self.route(flat).softmax(-1).max(dim=-1)
        y = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            chosen = torch.nonzero(which == index).squeeze(-1)
            y = y.index_add(0, chosen, expert(flat[chosen]) * best[chosen].unsqueeze(-1))
        return x + y.view_as(x)


class ChosenTokens(nn.Module):
    """The tokens with the best scores are gathered, worked on, and scattered back.

    Positions are added first: which of two equal tokens is better would be up to the runtime.
    """

    def __init__(self) -> None:
        super().__init__()
        self.score, self.work = nn.Linear(WIDTH, 1), Expert()
        self.places = nn.Parameter(torch.zeros(12, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.places
        best = self.score(x).squeeze(-1).topk(4, dim=1).indices
        at = best.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        y = self.work(x.gather(1, at))
        return x.scatter(1, at, y)


class Codebook(nn.Module):
    """The nearest of some learned vectors takes the place of each (VQ-VAE)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, 24)
        self.codes = nn.Embedding(16, 24)
        self.out = nn.Sequential(nn.Linear(24, 96), nn.ReLU(), nn.Linear(96, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        distance = torch.cdist(y.flatten(0, 1), self.codes.weight)
        nearest = self.codes(distance.argmin(-1)).view_as(y)
        return self.out(y + (nearest - y).detach())


class Distances(nn.Module):
    """Radial functions: how far is each token from learned centres."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, 48)
        self.centres = nn.Parameter(torch.zeros(1, 24, 48))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.inner(x)) * 0.2
        return torch.exp(-torch.cdist(y, self.centres * 0.1))


class Reordered(nn.Module):
    """Channels in a fixed order that a buffer holds."""

    def __init__(self, by_index: bool) -> None:
        super().__init__()
        self.by_index = by_index
        self.register_buffer("order", torch.randperm(WIDTH))
        self.mix = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = x[:, self.order] if self.by_index else torch.index_select(x, 1, self.order)
        return self.mix(x * torch.sigmoid(y))


class Classes(nn.Module):
    """One-hot numbers of the best entries, multiplied with a table."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.table = nn.Linear(WIDTH, 6), nn.Linear(6, WIDTH)
        self.work = Expert()

    def forward(self, x: Tensor) -> Tensor:
        best = self.score(x).argmax(-1)
        return self.work(x + self.table(F.one_hot(best, 6).to(x.dtype)))


class PerSample(nn.Module):
    """Every sample picks one place: an index along places from the data."""

    def __init__(self) -> None:
        super().__init__()
        self.work = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        place = x.detach().sum(-1).argmax(1)
        picked = x[torch.arange(x.shape[0]), place]
        return self.work(x) + picked.unsqueeze(1)


class Sorted(nn.Module):
    """Tokens ordered by a score of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.mix = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        order = self.score(x).squeeze(-1).argsort(1)
        y = torch.take_along_dim(x, order.unsqueeze(-1), dim=1)
        return self.mix(y).cumsum(1)


class Graph(nn.Module):
    """Messages along fixed edges, summed where they arrive (index_add)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 5, 7], [3, 3, 4, 0, 11]]))
        self.send, self.keep = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        messages = self.send(x)[:, self.edges[0]]
        total = torch.zeros_like(x).index_add(1, self.edges[1], messages)
        return F.relu(self.keep(x) + total)


def where_positive(x: Tensor) -> Tensor:
    y = torch.where(x > 0, x, torch.exp(x) - 1)
    return y.masked_fill(y > 2, 2.0) + (y < 0).float() * y.clamp(min=-1)


CASES = of_family(
    "routing",
    sentence("experts_dense", DenseExperts),
    sentence("experts_stacked", StackedExperts),
    sentence("experts_sparse", SparseExperts),
    sentence("tokens_chosen", ChosenTokens),
    sentence("codebook", Codebook, frozen="No ONNX function found"),
    sentence("cdist_centres", Distances, frozen="No ONNX function found"),
    picture("index_of_channels", lambda: Reordered(by_index=True)),
    picture("index_select_of_channels", lambda: Reordered(by_index=False)),
    sentence("one_hot", Classes),
    sentence("index_by_sample", PerSample),
    sentence("take_along", Sorted),
    sentence("index_add", Graph),
    vector("where_masks", where_positive),
)  # fmt: skip
