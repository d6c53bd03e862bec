"""References and threshold of the out-of-distribution score, on the data set itself."""

import numpy as np

from handlers.outputs.ood import Detector
from models import datasets, ood_references


def test_5_percent_of_the_test_set_are_above_the_threshold_and_noise_is():
    dataset = datasets.fashion_mnist()
    references = ood_references.choose(dataset.train_inputs, seed=0)
    assert references.shape == (1000, 14, 14)
    threshold = ood_references.threshold(references, dataset.test_inputs)
    detector = Detector(references)
    assert (detector.scores(dataset.test_inputs.numpy()) > threshold).sum() == 500
    noise = np.random.default_rng(0).integers(0, 256, (100, 28, 28), np.uint8)
    assert (detector.scores(noise) > threshold).all()


def test_the_seed_chooses_the_references():
    inputs = datasets.fashion_mnist().train_inputs
    first = ood_references.choose(inputs, seed=0)
    np.testing.assert_array_equal(ood_references.choose(inputs, seed=0), first)
    assert not np.array_equal(ood_references.choose(inputs, seed=1), first)
