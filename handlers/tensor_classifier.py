"""The handler of models whose input is an array of any shape: ``--handler`` of torch-model-archiver.

TorchServe requires exactly one class in this module. ``handlers.classifier`` does all the work.
"""

from __future__ import annotations

from handlers import classifier


class TensorClassifier(classifier.Classifier):
    """Classifies arrays."""

    kind = "tensor"
