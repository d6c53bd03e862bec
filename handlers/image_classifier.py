"""The handler of models whose input is an image: ``--handler`` of torch-model-archiver.

TorchServe wants exactly one class in this module; everything it does is in ``handlers.classifier``.
"""

from __future__ import annotations

from handlers import classifier


class ImageClassifier(classifier.Classifier):
    """Classifies images."""

    kind = "image"
