"""The item of a photograph on a background that is not plain."""

import numpy as np
import pytest
from PIL import Image

from handlers.inputs import images, segmentation
from tests.support import image_files
from tests.support.photographs import convert, floor, photograph

SHAPE = (28, 28)


@pytest.mark.parametrize("color", [(40, 60, 150), (240, 240, 240), (20, 20, 20), (200, 40, 60)], ids=str)
def test_the_item_is_found_on_a_patterned_background(color):
    found = np.asarray(segmentation.outline(photograph(color))) > 127
    expected = np.zeros(found.shape, bool)
    expected[50:200, 40:140] = True
    overlap = (found & expected).sum() / (found | expected).sum()
    assert overlap > 0.9


def test_a_second_part_of_the_item_is_kept_and_a_small_object_is_not():
    picture = photograph(box=(30, 60, 80, 190))
    picture.paste((40, 60, 150), (100, 60, 150, 190))
    picture.paste((250, 250, 250), (8, 8, 16, 16))
    found = np.asarray(segmentation.outline(picture)) > 127
    assert found[120, 55]
    assert found[120, 125]
    assert not found[12, 12]


def test_a_print_in_the_colors_of_the_background_is_part_of_the_item():
    picture = photograph()
    picture.paste(Image.fromarray(floor(24, 24)), (78, 110))
    assert np.asarray(segmentation.outline(picture))[120, 90] == 255


def test_stripes_in_the_colors_of_the_background_do_not_cut_the_item_in_pieces():
    picture = photograph()
    for top in (80, 110, 140, 170):
        picture.paste(Image.fromarray(floor(7, 100)), (40, top))
    outline = segmentation.outline(picture)
    assert (np.asarray(outline)[55:195, 45:135] > 127).mean() > 0.97


@pytest.mark.parametrize("tile", [(110, 150, 172, 232), (8, 150, 70, 232)], ids=str)
def test_a_piece_of_the_background_that_the_frame_does_not_show_is_not_the_item(tile):
    picture = photograph(box=(60, 50, 115, 150))
    picture.paste((205, 190, 170), tile)
    picture.paste((40, 60, 150), (60, 50, 115, 150))
    found = np.asarray(segmentation.outline(picture)) > 127
    left, top, right, bottom = tile
    assert found[55:145, 65:110].mean() > 0.97
    assert found[top + 5 : bottom - 5, left + 5 : right - 5].mean() < 0.1


@pytest.mark.parametrize("size", [(1, 1), (300, 1), (2, 300), (50, 60)], ids=str)
def test_a_picture_of_one_color_or_of_a_line_has_no_item_or_an_outline_of_its_size(size):
    outline = segmentation.outline(Image.new("RGB", size, (3, 140, 70)))
    assert outline is None or outline.size == size


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_decoded(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (120, 90, 3), np.uint8)
    assert images.decode(image_files.save(noise), SHAPE).shape == SHAPE


def test_a_photograph_gives_the_same_picture_each_time():
    first = convert(photograph(), SHAPE)
    np.testing.assert_array_equal(convert(photograph(), SHAPE), first)


def test_the_item_fills_the_longest_edge_on_black():
    converted = convert(photograph(), SHAPE)
    gray = round(40 * 0.299 + 60 * 0.587 + 150 * 0.114)
    assert np.abs(converted[4:24, 8:20].astype(int) - (255 - gray)).max() <= 8
    assert converted[:, :3].max() < 10
    assert converted[:, 25:].max() < 10


def test_a_plain_background_needs_no_segmentation(monkeypatch):
    monkeypatch.setattr(segmentation, "outline", lambda _: pytest.fail("segmented"))
    plain = np.full((240, 180, 3), (200, 220, 240), np.uint8)
    plain[50:200, 40:140] = (40, 60, 150)
    assert convert(Image.fromarray(plain), SHAPE).any()
    # The item covers half of the picture's edge.
    plain[:, :100] = (40, 60, 150)
    assert convert(Image.fromarray(plain), SHAPE).any()
