"""Recurrence: a hidden unit lives in four gates at once, and comes back at the next step.

    words - embed - [ LSTM ->  ] - cat - [ LSTM ->  ] - cat - linear - tags
                    [ LSTM <-  ]         [ LSTM <-  ]

    weight_ih[0] ~ weight_hh[0] ~ both biases     unit u is rows u, 48 + u, 96 + u and 144 + u
    weight_hh[1]                                  and a column of its own recurrence
    weight_ih[1] of layer 1                       and a column of both directions of the next layer

The two directions of a layer are separate groups.
"""

from torch import Tensor, nn

from models._random import seeded, tokens

VOCABULARY, TAGS = 200, 9


class Tagger(nn.Module):
    """A bidirectional LSTM tagger. int64 [batch, 12] -> [batch, 12, TAGS]"""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 32)
        self.recur = nn.LSTM(32, 48, num_layers=2, bidirectional=True, batch_first=True)
        self.classify = nn.Linear(2 * 48, TAGS)

    def forward(self, words: Tensor) -> Tensor:
        hidden, _ = self.recur(self.embed(words))
        return self.classify(hidden)


def tagger() -> nn.Module:
    return seeded(Tagger, 16)


def example_inputs() -> Tensor:
    return tokens(VOCABULARY, 2, 12)
