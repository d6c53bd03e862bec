"""The results of the calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A model's answer for one example.

    Attributes:
        class_index: the likeliest label's index among the model's labels; None if the labels are independent of each
            other, because then no single label is the class.
        label: the likeliest label.
        probability: its probability, 0 to 1.
        probabilities: probability by label; all labels in the model's order, or the ``top_k`` likeliest first.
        ood: how unlike the training data the example is, 0 to 1 (out-of-distribution score); None if the answer has no
            score. Answers to image files that the service converts have one.
        ood_threshold: the score that 5 % of the model's test examples exceed; None without a score.
    """

    class_index: int | None
    label: str
    probability: float
    probabilities: Mapping[str, float]
    ood: float | None = None
    ood_threshold: float | None = None

    @property
    def is_unfamiliar(self) -> bool:
        """Whether the score is above the threshold, so that the answer may be wrong whatever its probability."""
        return self.ood is not None and self.ood_threshold is not None and self.ood > self.ood_threshold


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions(Sequence[Prediction]):
    """A model's answers for many examples, in order: one array that is a sequence of ``Prediction``.

    Attributes:
        labels: the model's labels, in order.
        probabilities: float32 [N, len(labels)], 0 to 1.
        independent: whether the labels are independent of each other, so that a row need not sum to 1.
        top_k: the number of labels in each ``Prediction``, None for all.
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
        probabilities = {self.labels[place]: float(row[place]) for place in shown}
        return Prediction(None if self.independent else best, self.labels[best], float(row[best]), probabilities)


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """How much each part of an example supports or opposes a label.

    Attributes:
        target: the explained label's index among the model's labels.
        attributions: float32 in the example's shape ([28, 28] for an image); positive values support the label,
            negative values oppose it.
        class_index: the predicted class; None if the labels are independent of each other.
        label: the predicted class's label; None if the labels are independent of each other.
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
        shape: the length of each axis; -1 for any length.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of the service.

    Attributes:
        name: a value for ``model=``.
        versions: the values for ``version=``.
        inputs: its inputs; an example has the first input's shape without the first axis.
        outputs: its outputs.
    """

    name: str
    versions: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
