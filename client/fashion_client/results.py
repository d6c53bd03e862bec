"""What the calls return."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says about one example.

    Attributes:
        class_index: the likeliest label's place among the model's labels, from 0; None where the labels are
            independent of each other, so that no single one is the class.
        label: the likeliest label.
        probability: its probability, 0 to 1.
        probabilities: label to probability; all labels in the model's order, or the ``top_k`` likeliest first.
    """

    class_index: int | None
    label: str
    probability: float
    probabilities: Mapping[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions(Sequence[Prediction]):
    """What a model says about many examples, in their order: one array, read as a sequence of :class:`Prediction`.

    Attributes:
        labels: the model's labels, in order.
        probabilities: float32 [N, len(labels)], 0 to 1.
        independent: each label is likely or not by itself, so that a row need not sum to 1.
        top_k: how many labels each single :class:`Prediction` names, None for all.
    """

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    independent: bool = False
    top_k: int | None = None

    @property
    def classes(self) -> NDArray[np.int64]:
        """The likeliest label's index for each example: int64 [N]."""
        if not self.labels:
            return np.zeros(0, np.int64)
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)

    def __len__(self) -> int:
        return len(self.probabilities)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Predictions: ...
    def __getitem__(self, index: int | slice) -> Prediction | Predictions:
        if isinstance(index, slice):
            return dataclasses.replace(self, probabilities=self.probabilities[index])
        row = self.probabilities[index]
        best = int(row.argmax())
        shown = range(len(row)) if self.top_k is None else np.argsort(-row, kind="stable")[: self.top_k]
        named = {self.labels[place]: float(row[place]) for place in shown}
        return Prediction(None if self.independent else best, self.labels[best], float(row[best]), named)


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Which parts of an example spoke for a label, and which against it.

    Attributes:
        target: the explained label's place among the model's labels, from 0.
        attributions: float32, shaped like the example as the model takes it ([28, 28] for an image); above 0 for,
            below 0 against the label.
        class_index: what the model predicts; None where the labels are independent of each other.
        label: that class's label, None likewise.
    """

    target: int
    attributions: NDArray[np.float32]
    class_index: int | None
    label: str | None


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of a model, as the Open Inference Protocol describes it.

    Attributes:
        name: the tensor's name.
        datatype: the protocol's name of the element type, such as ``UINT8`` or ``FP32``.
        shape: its axes; -1 where any length will do.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that the service answers for.

    Attributes:
        name: what ``model=`` takes.
        versions: what ``version=`` takes.
        inputs: its inputs; the first one's shape without the first axis is one example.
        outputs: its outputs.
    """

    name: str
    versions: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
