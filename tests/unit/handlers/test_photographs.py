"""The conversion of photographs: ground, trimming, place and size."""

import numpy as np
import pytest
from PIL import Image

from handlers.inputs import photographs
from tests.support import image_files

SHAPE = (28, 28)


def catalogue(ground=(255, 255, 255), scale=6, margins=(30, 12, 8, 41), size=(28, 20), value=120):
    """A block of one grey, ``size`` times ``scale`` pixels, on a ground with margins: top, bottom, left, right."""
    top, bottom, left, right = margins
    height, width = size[0] * scale, size[1] * scale
    pixels = np.empty((top + height + bottom, left + width + right, 3), np.uint8)
    pixels[:] = ground
    pixels[top : top + height, left : left + width] = value
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "ground", [(255, 255, 255), (240, 240, 238), (200, 220, 240), (250, 220, 60), (20, 60, 30), (0, 0, 0)], ids=str
)
def test_an_item_fills_the_longest_edge_on_black_whatever_the_ground(ground):
    found = photographs.convert(catalogue(ground), SHAPE)
    np.testing.assert_array_equal(found[:, 4:24], 255 - 120)
    assert not found[:, :4].any()
    assert not found[:, 24:].any()


@pytest.mark.parametrize("margins", [(0, 0, 0, 0), (100, 0, 0, 100), (0, 50, 200, 3), (9, 9, 9, 9)], ids=str)
def test_where_the_item_lies_makes_no_difference(margins):
    # Without any margin the corners are the item's, so one column of ground stays.
    margins = (*margins[:2], margins[2] + 1, margins[3] + 1)
    np.testing.assert_array_equal(
        photographs.convert(catalogue(margins=margins), SHAPE), photographs.convert(catalogue(), SHAPE)
    )


@pytest.mark.parametrize("ground", [(255, 255, 255), (200, 220, 240)], ids=str)
def test_the_item_may_reach_over_an_edge_and_its_corners(ground):
    pixels = np.asarray(catalogue(ground, margins=(30, 0, 20, 20))).copy()
    pixels[-30:] = 120
    found = photographs.convert(Image.fromarray(pixels), SHAPE)
    np.testing.assert_array_equal(found[2:20, 6:21], 255 - 120)
    np.testing.assert_array_equal(found[-2:, 1:26], 255 - 120)
    assert not found[:20, :2].any()


def test_a_little_noise_is_still_one_ground():
    pixels = np.asarray(catalogue((200, 220, 240))).astype(int)
    noisy = pixels + np.random.default_rng(0).integers(-5, 6, pixels.shape)
    found = photographs.convert(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), SHAPE)
    clean = photographs.convert(catalogue((200, 220, 240)), SHAPE)
    assert np.abs(found.astype(int) - clean).max() <= 6


def test_how_large_the_item_is_makes_no_difference():
    for scale in (2, 3, 11):
        np.testing.assert_array_equal(
            photographs.convert(catalogue(scale=scale), SHAPE), photographs.convert(catalogue(), SHAPE)
        )


def test_the_colour_of_the_ground_within_the_item_stays():
    pixels = np.asarray(catalogue((60, 110, 180))).copy()
    inside = pixels[80:110, 50:80]
    inside[:] = (60, 110, 180)
    found = photographs.convert(Image.fromarray(pixels), SHAPE)
    grey = round(60 * 0.299 + 110 * 0.587 + 180 * 0.114)
    row, column = (95 - 30) // 6, (65 - 8) // 6 + 4
    assert abs(int(found[row, column]) - (255 - grey)) <= 12


def test_mixed_pixels_leave_no_rim():
    smooth = catalogue((0, 0, 0), value=230).resize((140, 180), Image.Resampling.BICUBIC)
    found = photographs.convert(smooth, SHAPE)
    # On a black ground a rim left dark would turn out bright.
    assert found.max() <= 2 * (255 - 230)


@pytest.mark.parametrize("size", [(1, 1), (300, 1), (1, 300), (50, 60)], ids=str)
def test_one_colour_is_no_item(size):
    assert not photographs.convert(Image.new("RGB", size, (3, 140, 70)), SHAPE).any()


def test_a_wide_item_fits_another_shape():
    found = photographs.convert(catalogue(size=(10, 30)), (6, 10))
    assert found.shape == (6, 10)
    assert found[2, 0] > 0
    assert found[2, 9] > 0
    assert not found[0].any()


def test_a_dataset_picture_comes_back_from_its_catalogue_picture():
    original = image_files.texture()
    rendered = np.pad(255 - np.kron(original, np.ones((8, 8), np.uint8)), ((20, 33), (50, 7)), constant_values=255)
    found = photographs.convert(Image.fromarray(rendered).convert("RGB"), SHAPE)
    assert np.abs(found.astype(int) - original).mean() < 12


def test_spread_takes_the_largest_in_reach():
    values = np.zeros((7, 9), np.float32)
    values[3, 4] = 5
    values[0, 0] = 7
    found = photographs.spread(values, 2)
    expected = np.zeros_like(values)
    expected[1:6, 2:7] = 5
    expected[:3, :3] = 7
    np.testing.assert_array_equal(found, expected)
    assert photographs.spread(values, 50).min() == 7


def test_connected_follows_bends_but_not_corners():
    drawn = np.array([list("..####"), list("#.#..#"), list("#.#.##"), list("#...#."), list("#####.")])
    mask = drawn == "."
    found = photographs.connected(mask)
    expected = mask.copy()
    np.testing.assert_array_equal(found, expected)
    walled = np.array([list("######"), list("#.#..#"), list("######"), list(".#.###")]) == "."
    np.testing.assert_array_equal(photographs.connected(walled), (np.arange(4) == 3)[:, None] & walled)
