"""Networks of vectors in torch."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Perceptron(nn.Module):
    """`in_dsl.perceptron`."""

    def __init__(self, widths: tuple[int, ...], drop: float = 0.0) -> None:
        super().__init__()
        self.drop = drop
        self.hidden = [f"hidden{i}" for i in range(len(widths) - 2)]
        for name, inputs, outputs in zip(
            (*self.hidden, "head"), widths[:-1], widths[1:], strict=True
        ):
            setattr(self, name, nn.Linear(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        for name in self.hidden:
            x = functional.relu(getattr(self, name)(x))
            if self.drop:
                x = functional.dropout(x, self.drop, self.training)
        return self.head(x)  # type: ignore[no-any-return]


class Bag(nn.Module):
    """`in_dsl.bag`."""

    def __init__(self, words: int, width: int, length: int, classes: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.hidden, self.head = nn.Linear(width, width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.hidden(self.words(x).mean(1))))  # type: ignore[no-any-return]
