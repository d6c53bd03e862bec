"""The out-of-distribution score."""

import numpy as np
import pytest

from handlers.outputs import ood
from handlers.signature import OOD_REFERENCES_FILE_NAME, SignatureError
from tests.support import image_files

PICTURES = np.stack([image_files.texture(seed=seed) for seed in range(30)])


@pytest.fixture(scope="module")
def detector():
    return ood.Detector(ood.reduced(PICTURES[:20]))


def test_pictures_are_halved_by_the_mean_of_four_pixels():
    picture = np.array([[[0, 10, 200, 200, 9], [20, 30, 100, 100, 9], [9, 9, 9, 9, 9]]], np.uint8)
    assert ood.reduced(picture).tolist() == [[[15, 150]]]


def test_the_score_is_1_less_the_largest_correlation(detector):
    references = ood.reduced(PICTURES[:20]).reshape(20, -1)
    for picture, score in zip(PICTURES, detector.scores(PICTURES), strict=True):
        own = ood.reduced(picture[np.newaxis]).ravel()
        largest = max(np.corrcoef(own, reference)[0, 1] for reference in references)
        assert score == pytest.approx(np.clip(1 - largest, 0, 1), abs=1e-5)


def test_a_reference_has_0_also_with_other_light_and_contrast(detector):
    other = (PICTURES[:1] * 0.5 + 60).astype(np.uint8)
    np.testing.assert_allclose(detector.scores(np.concatenate([PICTURES[:1], other])), 0, atol=0.01)


@pytest.mark.parametrize("level", [0, 1, 127, 255])
def test_one_color_has_1(detector, level):
    assert detector.scores(np.full((1, 28, 28), level, np.uint8)).tolist() == [1]


def test_no_score_depends_on_the_other_pictures(detector):
    together = detector.scores(PICTURES)
    alone = [detector.scores(picture[np.newaxis])[0] for picture in PICTURES]
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("content", [None, b"", b"not an array"], ids=str)
def test_missing_or_damaged_references_are_named(tmp_path, content):
    if content is not None:
        (tmp_path / OOD_REFERENCES_FILE_NAME).write_bytes(content)
    with pytest.raises(SignatureError, match=OOD_REFERENCES_FILE_NAME):
        ood.read(tmp_path)
