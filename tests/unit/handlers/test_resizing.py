"""Pictures become the network's size by the rule of its training."""

import io

import numpy as np
import pytest
from PIL import Image

from handlers.inputs import images
from tests.support import image_files

# Left and right quarter black, the middle half white: 40 pixels wide, 20 high.
STRIPE = np.zeros((20, 40), np.uint8)
STRIPE[:, 10:30] = 255


def decoded(picture, shape, rule):
    return images.decode(image_files.save(picture), shape, resize=rule)


def test_stretch_keeps_all_of_the_picture_and_not_its_proportions():
    pixels = decoded(STRIPE, (20, 20), "stretch")
    assert pixels.shape == (20, 20)
    assert (pixels[:, :4] == 0).all()
    assert (pixels[:, 7:13] == 255).all()
    assert (pixels[:, 16:] == 0).all()


def test_fit_adds_black_beside_the_picture():
    pixels = decoded(255 - STRIPE, (20, 20), "fit")
    assert (pixels[:5] == 0).all()
    assert (pixels[15:] == 0).all()
    assert (pixels[6:14, [0, 19]] == 255).all()
    assert (pixels[6:14, 7:13] == 0).all()


def test_crop_takes_the_middle():
    # The outermost columns include some of the black beside them.
    assert (decoded(STRIPE, (10, 10), "crop")[:, 1:-1] == 255).all()


@pytest.mark.parametrize("rule", ["stretch", "fit", "crop"])
def test_a_picture_of_the_networks_size_stays_as_it_is(rule):
    colors = np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8)
    np.testing.assert_array_equal(decoded(colors, (3, 9, 7), rule), colors.transpose(2, 0, 1))
    white = np.full((9, 7), 255, np.uint8)
    np.testing.assert_array_equal(decoded(white, (9, 7), rule), white)


def test_colors_and_gray_become_what_the_network_takes():
    red = Image.new("RGB", (6, 4), (255, 0, 0))
    assert decoded(red, (3, 4, 6), "stretch")[:, 0, 0].tolist() == [255, 0, 0]
    assert (decoded(red, (4, 6), "stretch") == 76).all()
    np.testing.assert_array_equal(decoded(STRIPE, (3, 20, 40), "fit"), np.stack([STRIPE] * 3))


def test_what_is_transparent_becomes_white():
    assert (decoded(Image.new("RGBA", (6, 4), (255, 0, 0, 0)), (3, 4, 6), "stretch") == 255).all()


def test_a_large_picture_stays_sharp_at_a_large_size():
    # Of stripes as wide as the network's pixels; reduced to less than the network's size they would blur.
    stripes = np.zeros((1200, 1200), np.uint8)
    stripes[:, np.arange(1200) // 4 % 2 == 1] = 255
    pixels = decoded(stripes, (300, 300), "stretch").astype(int)
    assert np.abs(np.diff(pixels[150, 20:280])).min() > 100


def test_the_size_is_that_of_an_upright_picture():
    picture = Image.new("L", (40, 20))
    picture.paste(255, (0, 0, 20, 20))
    stream = io.BytesIO()
    exif = Image.Exif()
    # Rotated by 90 degrees: the white left half becomes the upper one.
    exif[0x0112] = 6
    picture.save(stream, "PNG", exif=exif)
    pixels = images.decode(stream.getvalue(), (40, 20), resize="stretch")
    assert (pixels[:19] == 255).all()
    assert (pixels[21:] == 0).all()
