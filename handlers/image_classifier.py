"""The handler of models whose input is an image: ``--handler`` of torch-model-archiver.

TorchServe requires exactly one class in this module. ``handlers.classifier`` does all the work.
"""

from __future__ import annotations

from handlers import classifier


class ImageClassifier(classifier.Classifier):
    """Classifies images."""

    kind = "image"
