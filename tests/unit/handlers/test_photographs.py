"""The conversion of photographs: background, trimming, position and size."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from handlers.inputs import photographs
from tests.support import image_files
from tests.support.photographs import convert

SHAPE = (28, 28)


def catalog(background=(255, 255, 255), scale=6, margins=(30, 12, 8, 41), size=(28, 20), value=120):
    """A block of one gray, ``size`` times ``scale`` pixels, on a background with margins: top, bottom, left, right."""
    top, bottom, left, right = margins
    height, width = size[0] * scale, size[1] * scale
    pixels = np.empty((top + height + bottom, left + width + right, 3), np.uint8)
    pixels[:] = background
    pixels[top : top + height, left : left + width] = value
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "background", [(255, 255, 255), (240, 240, 238), (200, 220, 240), (250, 220, 60), (20, 60, 30), (0, 0, 0)], ids=str
)
def test_an_item_fills_the_longest_edge_on_black_for_any_background(background):
    converted = convert(catalog(background), SHAPE)
    np.testing.assert_array_equal(converted[:, 4:24], 255 - 120)
    assert not converted[:, :4].any()
    assert not converted[:, 24:].any()


@pytest.mark.parametrize("margins", [(0, 0, 0, 0), (100, 0, 0, 100), (0, 50, 200, 3), (9, 9, 9, 9)], ids=str)
def test_the_position_of_the_item_makes_no_difference(margins):
    # At least one row and column of background: without any, the corners would be the item's.
    margins = (*margins[:2], margins[2] + 1, margins[3] + 1)
    np.testing.assert_array_equal(convert(catalog(margins=margins), SHAPE), convert(catalog(), SHAPE))


@pytest.mark.parametrize("background", [(255, 255, 255), (200, 220, 240)], ids=str)
def test_the_item_may_cover_an_edge_and_its_corners(background):
    pixels = np.asarray(catalog(background, margins=(30, 0, 20, 20))).copy()
    pixels[-30:] = 120
    converted = convert(Image.fromarray(pixels), SHAPE)
    np.testing.assert_array_equal(converted[2:20, 6:21], 255 - 120)
    np.testing.assert_array_equal(converted[-2:, 1:26], 255 - 120)
    assert not converted[:20, :2].any()


def test_a_slightly_noisy_background_is_removed():
    pixels = np.asarray(catalog((200, 220, 240))).astype(int)
    noisy = pixels + np.random.default_rng(0).integers(-5, 6, pixels.shape)
    converted = convert(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), SHAPE)
    clean = convert(catalog((200, 220, 240)), SHAPE)
    assert np.abs(converted.astype(int) - clean).max() <= 6


def test_the_size_of_the_item_makes_no_difference():
    for scale in (2, 3, 11):
        np.testing.assert_array_equal(convert(catalog(scale=scale), SHAPE), convert(catalog(), SHAPE))


def test_the_color_of_the_background_is_kept_inside_the_item():
    pixels = np.asarray(catalog((60, 110, 180))).copy()
    inside = pixels[80:110, 50:80]
    inside[:] = (60, 110, 180)
    converted = convert(Image.fromarray(pixels), SHAPE)
    gray = round(60 * 0.299 + 110 * 0.587 + 180 * 0.114)
    row, column = (95 - 30) // 6, (65 - 8) // 6 + 4
    assert abs(int(converted[row, column]) - (255 - gray)) <= 12


def test_mixed_pixels_leave_no_bright_rim():
    smooth = catalog((0, 0, 0), value=230).resize((140, 180), Image.Resampling.BICUBIC)
    converted = convert(smooth, SHAPE)
    # A rim left dark by the black background would become bright.
    assert converted.max() <= 2 * (255 - 230)


@pytest.mark.parametrize("size", [(1, 1), (300, 1), (1, 300), (50, 60)], ids=str)
def test_a_picture_of_one_color_has_no_item(size):
    assert not convert(Image.new("RGB", size, (3, 140, 70)), SHAPE).any()


def test_a_wide_item_fits_another_shape():
    converted = convert(catalog(size=(10, 30)), (6, 10))
    assert converted.shape == (6, 10)
    assert converted[2, 0] > 0
    assert converted[2, 9] > 0
    assert not converted[0].any()


def test_a_dataset_picture_is_restored_from_its_catalog_picture():
    original = image_files.texture()
    rendered = np.pad(255 - np.kron(original, np.ones((8, 8), np.uint8)), ((20, 33), (50, 7)), constant_values=255)
    converted = convert(Image.fromarray(rendered).convert("RGB"), SHAPE)
    assert np.abs(converted.astype(int) - original).mean() < 12


def uneven(fall):
    """The light of a background that gets darker by ``fall`` levels from left to right, and at the corners."""
    y, x = np.mgrid[-1:1:209j, -1:1:169j]
    return {"to the right": -fall * (x + 1) / 2, "to the corners": -fall * (x * x + y * y) / 2}


@pytest.mark.parametrize("light", ["to the right", "to the corners"])
@pytest.mark.parametrize("background", [(255, 255, 255), (200, 220, 240)], ids=str)
@pytest.mark.parametrize("fall", [30, 60, 80])
def test_uneven_light_on_the_background_makes_no_difference(light, background, fall):
    pixels = np.asarray(catalog(background, margins=(30, 11, 18, 31))).astype(int)
    lit = np.where(pixels == background, pixels + uneven(fall)[light][..., np.newaxis], pixels)
    converted = convert(Image.fromarray(lit.astype(np.uint8)), SHAPE)
    assert np.abs(converted[:, 5:23].astype(int) - (255 - 120)).max() <= 5
    assert not converted[:, :3].any()
    assert not converted[:, 25:].any()


def bright_item():
    """A picture like the data set's, uint8 [28, 28]: an item on black that is darker along its outline."""
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    return (np.maximum(1 - (x / 0.7) ** 4 - (y * 0.98) ** 8, 0) ** 0.5 * 220).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "margins"), [((56, 56), 0), ((280, 280), 0), ((28, 28), 2), ((280, 280), (10, 70))], ids=str
)
@pytest.mark.parametrize("method", [Image.Resampling.NEAREST, Image.Resampling.BICUBIC])
def test_a_picture_in_the_data_sets_look_is_not_negated(size, margins, method):
    original = bright_item()
    file = ImageOps.expand(Image.fromarray(original).resize(size, method), margins, 0).convert("RGB")
    converted = convert(file, SHAPE)
    assert np.abs(converted.astype(int) - original).mean() < 8
    negated = convert(file, SHAPE, always_negate=True)
    assert abs(int(negated[14, 14]) - (255 - original[14, 14])) <= 3


def test_a_negative_on_black_is_negated():
    original = bright_item()
    item = Image.fromarray(np.where(original > 0, 255 - original, 0).astype(np.uint8))
    converted = convert(item.resize((280, 280), Image.Resampling.NEAREST).convert("RGB"), SHAPE)
    assert np.corrcoef(converted[original > 0], original[original > 0])[0, 1] > 0.9


@pytest.mark.parametrize(("lightest", "darkest"), [(255, 245), (245, 200)], ids=str)
def test_a_light_item_that_is_cut_out_keeps_its_relief(lightest, darkest):
    original = bright_item()
    shades = darkest + original / 255 * (lightest - darkest)
    picture = Image.fromarray(shades.astype(np.uint8)).convert("RGB")
    outline = Image.fromarray(((original > 0) * 255).astype(np.uint8))
    converted = photographs.cut_out(picture, outline, SHAPE)
    inside = original > 100
    assert np.corrcoef(converted[inside], original[inside])[0, 1] > 0.9
    assert np.ptp(converted[inside]) > 100
    assert not converted[original == 0].any()


def test_a_dark_item_that_is_cut_out_is_negated():
    picture = Image.new("RGB", (50, 40), "white")
    picture.paste((30, 30, 30), (10, 5, 40, 35))
    outline = Image.new("L", picture.size)
    outline.paste(255, (10, 5, 40, 35))
    np.testing.assert_array_equal(photographs.cut_out(picture, outline, SHAPE), 255 - 30)


def test_an_empty_outline_has_no_item():
    assert not photographs.cut_out(Image.new("RGB", (9, 9)), Image.new("L", (9, 9)), SHAPE).any()
