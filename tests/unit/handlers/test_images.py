"""Image files of every format, mode and orientation, and damaged or mislabeled files."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from handlers import limits, problems
from handlers.inputs import images
from tests.support import image_files

SHAPE = (28, 28)
PICTURE = image_files.texture()


@pytest.mark.parametrize("format_", image_files.LOSSLESS)
def test_a_gray_picture_of_the_models_size_is_unchanged(format_):
    file = image_files.save(PICTURE, format_, **image_files.LOSSLESS[format_])
    np.testing.assert_array_equal(images.decode(file, SHAPE), PICTURE)


def test_a_gray_jpeg_of_the_models_size_is_unchanged():
    file = image_files.save(PICTURE, "JPEG", quality=95)
    np.testing.assert_array_equal(images.decode(file, SHAPE), np.asarray(Image.open(io.BytesIO(file))))


def test_a_bare_png_of_too_many_bytes_is_not_read():
    file = image_files.save(PICTURE)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PICTURE))
    for more, is_read in ((0, True), (limits.IMAGE_BYTES, False)):
        padded = file[:33] + image_files.chunk(b"IDAT", data + bytes(more)) + image_files.chunk(b"IEND")
        assert (images.bare_png(padded, SHAPE) is not None) == is_read


def outcome(file: bytes, prepare: images.Prepare = "auto") -> bytes | str:
    """The pixels of a file, or its problem."""
    try:
        return images.decode(file, SHAPE, prepare).tobytes()
    except problems.Problem as problem:
        return repr(problem)


def test_a_bare_png_gives_the_same_result_as_any_other(monkeypatch):
    file = image_files.save(PICTURE)
    damaged = [
        file[:place] + bytes([file[place] ^ flip]) + file[place + 1 :]
        for place in range(len(file))
        for flip in (1, 128)
    ]
    cases = [
        *(image_files.save(image_files.texture(seed=seed), compress_level=seed % 10) for seed in range(30)),
        *(image_files.save(np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)) for seed in range(10)),
        image_files.save(image_files.texture(28, 29)),
        image_files.save(Image.fromarray(PICTURE), transparency=PICTURE[14, 14].item()),
        *(file[:end] for end in range(len(file))),
        file + b"more",
        file[:33] + image_files.chunk(b"IDAT") + file[33:],
        image_files.png_declaring(28, 28),
        *damaged,
    ]
    assert images.bare_png(file, SHAPE) is not None
    results = [outcome(case, prepare) for case in cases for prepare in ("auto", "none", "photo")]
    monkeypatch.setattr(images, "bare_png", lambda *_: None)
    assert results == [outcome(case, prepare) for case in cases for prepare in ("auto", "none", "photo")]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16"])
def test_gray_content_is_gray_in_any_mode_of_png(mode):
    picture = Image.fromarray(PICTURE)
    expected = PICTURE
    if mode == "1":
        picture = picture.convert("1")
        expected = np.asarray(picture.convert("L"))
    elif mode == "I;16":
        picture = Image.fromarray(PICTURE.astype(np.uint16) * 257)
    elif mode in ("P", "PA"):
        picture = picture.convert("P")
    else:
        picture = picture.convert(mode)
    np.testing.assert_array_equal(images.decode(image_files.save(picture), SHAPE), expected)


def test_a_palette_of_colors_is_not_gray():
    picture = Image.fromarray(PICTURE).convert("P")
    picture.putpalette([value for gray in range(256) for value in (gray, 255 - gray, 90)])
    assert not np.array_equal(images.decode(image_files.save(picture), SHAPE), PICTURE)


@pytest.mark.parametrize("prepare", ["auto", "none"])
def test_cmyk_and_progressive_jpeg_are_read(prepare):
    colors = Image.fromarray(np.stack([image_files.texture(120, 90, seed) for seed in range(3)], -1))
    for picture in (colors.convert("CMYK"), colors):
        plain = images.decode(image_files.save(picture, "JPEG", quality=95), SHAPE, prepare)
        progressive = images.decode(image_files.save(picture, "JPEG", quality=95, progressive=True), SHAPE, prepare)
        np.testing.assert_array_equal(plain, progressive)


@pytest.mark.parametrize("format_", image_files.FORMATS)
def test_the_formats_agree_on_one_photograph(format_):
    item = 255 - np.kron(image_files.texture(), np.ones((9, 9), np.uint8))
    colors = Image.fromarray(np.stack([item, item // 2 + 127, item], -1))
    file = image_files.save(colors, format_, **image_files.LOSSLESS.get(format_, {"quality": 95}))
    reference = images.decode(image_files.save(colors), SHAPE).astype(int)
    # GIF has 256 colors, and JPEG blurs.
    assert np.abs(images.decode(file, SHAPE).astype(int) - reference).mean() < 4


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparent_pixels_become_white(mode):
    item = np.full((84, 84), 0, np.uint8)
    alpha = np.zeros((84, 84), np.uint8)
    alpha[20:60, 30:50] = 255
    item[20:60, 30:50] = 100
    picture = Image.merge("LA", [Image.fromarray(item), Image.fromarray(alpha)])
    if mode == "P":
        picture = Image.fromarray(np.where(alpha, 1, 0).astype(np.uint8), "P")
        picture.putpalette([0, 0, 0, 100, 100, 100])
        file = image_files.save(picture, "PNG", transparency=0)
    else:
        file = image_files.save(picture.convert(mode))
    opaque = Image.fromarray(np.where(alpha, item, 255).astype(np.uint8))
    np.testing.assert_array_equal(images.decode(file, SHAPE), images.decode(image_files.save(opaque), SHAPE))
    np.testing.assert_array_equal(
        images.decode(file, SHAPE, "none"), images.decode(image_files.save(opaque), SHAPE, "none")
    )


def test_a_transparent_picture_of_the_models_size_is_converted():
    picture = Image.fromarray(PICTURE).convert("LA")
    picture.putalpha(Image.fromarray(np.where(PICTURE > 20, 255, 0).astype(np.uint8)))
    assert not np.array_equal(images.decode(image_files.save(picture), SHAPE), PICTURE)


def test_sixteen_bits_with_a_transparent_gray():
    values = np.full((28, 28), 1000, np.uint16)
    values[5:20, 8:20] = 40000
    file = image_files.save(Image.fromarray(values))
    # Pillow writes no tRNS chunk for 16 bits, so one is put before the data.
    place = file.index(b"IDAT") - 4
    file = file[:place] + image_files.chunk(b"tRNS", struct.pack(">H", 1000)) + file[place:]
    whole = images.decode(file, SHAPE, "none")
    assert whole[0, 0] == 255
    assert whole[10, 10] == 40000 >> 8


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format_, orientation):
    picture = Image.fromarray(np.kron(image_files.texture(28, 20), np.ones((6, 6), np.uint8)))
    turned = {
        1: picture,
        2: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: picture.transpose(Image.Transpose.ROTATE_180),
        4: picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: picture.transpose(Image.Transpose.TRANSPOSE),
        6: picture.transpose(Image.Transpose.ROTATE_90),
        7: picture.transpose(Image.Transpose.TRANSVERSE),
        8: picture.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {"lossless": True} if format_ == "WEBP" else {"quality": 100} if format_ == "JPEG" else {}
    decoded = images.decode(image_files.save(turned.convert("RGB"), format_, exif=exif, **settings), SHAPE, "none")
    upright = images.decode(image_files.save(picture), SHAPE, "none")
    assert np.abs(decoded.astype(int) - upright).max() <= 2


def test_exif_orientation_turns_a_gray_picture_of_the_models_size():
    exif = Image.Exif()
    exif[0x0112] = 3
    np.testing.assert_array_equal(images.decode(image_files.save(PICTURE, exif=exif), SHAPE), PICTURE[::-1, ::-1])


@pytest.mark.parametrize(
    "exif",
    [b"", b"II*\0", b"MM\0*\0\0\0\x08\0\x01", b"II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(40)],
    ids=["empty", "cut", "no entry", "far away", "more entries than bytes"],
)
def test_broken_exif_is_ignored(exif):
    file = image_files.save(PICTURE)
    file = file[:33] + image_files.chunk(b"eXIf", exif) + file[33:]
    np.testing.assert_array_equal(images.decode(file, SHAPE), PICTURE)


def test_exif_that_pillow_cannot_read_is_ignored():
    entries = b"".join(struct.pack(">HHII", tag, 2, 1, 0) for tag in range(300))
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 300) + entries
    file = image_files.save(PICTURE, "JPEG", quality=95)
    odd = file[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + file[2:]
    np.testing.assert_array_equal(images.decode(odd, SHAPE), images.decode(file, SHAPE))


def test_prepare_none_only_resizes():
    enlarged = image_files.save(np.kron(PICTURE, np.ones((5, 5), np.uint8)))
    np.testing.assert_array_equal(images.decode(enlarged, SHAPE, "none"), PICTURE)
    np.testing.assert_array_equal(images.decode(image_files.save(PICTURE), SHAPE, "none"), PICTURE)
    assert images.decode(image_files.save(PICTURE[:7, :7]), SHAPE, "none").shape == SHAPE


def test_prepare_photo_converts_a_picture_of_the_models_size_too():
    catalog = image_files.save(255 - PICTURE)
    np.testing.assert_array_equal(images.decode(catalog, SHAPE), 255 - PICTURE)
    converted = images.decode(catalog, SHAPE, "photo")
    # Black where the photograph was white, and bright where the item was dark.
    assert converted[0, 0] == 0
    assert converted[14, 14] > 150


def test_the_first_picture_of_an_animation_is_used():
    frames = [Image.fromarray(image_files.texture(seed=seed)) for seed in range(3)]
    for format_ in ("GIF", "PNG"):
        file = image_files.save(frames[0], format_, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(images.decode(file, SHAPE), np.asarray(frames[0]))


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (900, 2), (29, 28), (1600, 1200)], ids=str)
@pytest.mark.parametrize("format_", image_files.FORMATS)
def test_any_size_gives_the_models_shape(size, format_):
    file = image_files.save(Image.fromarray(image_files.texture(size[1], size[0])).convert("RGB"), format_)
    for prepare in ("auto", "none", "photo"):
        assert images.decode(file, SHAPE, prepare).shape == SHAPE
        assert images.decode(file, (6, 10), prepare).shape == (6, 10)


@pytest.mark.parametrize("format_", image_files.FORMATS)
def test_a_truncated_file_is_malformed(format_):
    file = image_files.save(Image.fromarray(image_files.texture(90, 70)).convert("RGB"), format_)
    for part in (0.3, 0.6, 0.9):
        with pytest.raises(problems.Malformed):
            images.decode(file[: int(len(file) * part)], SHAPE)


@pytest.mark.parametrize("size", [(28, 28), (90, 70)], ids=["the model's size", "a photograph"])
def test_a_png_cut_anywhere_is_truncated(size):
    file = image_files.save(image_files.texture(*size))
    for end in range(12, len(file)):
        with pytest.raises(problems.Malformed, match=r"the PNG image is truncated|no valid header"):
            images.decode(file[:end], SHAPE)


def jpeg_segments(file: bytes) -> list[int]:
    """The positions of the segments after the first, up to that of the scan."""
    place, starts = 2, []
    while file[place + 1] != 0xDA:
        place += 2 + int.from_bytes(file[place + 2 : place + 4], "big")
        starts.append(place)
    return starts


@pytest.mark.parametrize("stray", [b"\0", b"eighteen more bytes", b"\xff\0", bytes(60_000)], ids=len)
@pytest.mark.parametrize("progressive", [False, True])
def test_stray_bytes_between_the_segments_of_a_jpeg_are_skipped(stray, progressive):
    file = image_files.save(PICTURE, "JPEG", quality=95, progressive=progressive, comment=b"a comment")
    expected = images.decode(file, SHAPE)
    for start in jpeg_segments(file):
        np.testing.assert_array_equal(images.decode(file[:start] + stray + file[start:], SHAPE), expected)


@pytest.mark.parametrize(
    "stray", [bytes(limits.JPEG_STRAY_BYTES + 1), b"\0\xff\0" * limits.IMAGE_PIECES], ids=["one run", "many runs"]
)
def test_too_many_stray_bytes_are_refused(stray):
    file = image_files.save(PICTURE, "JPEG")
    start = jpeg_segments(file)[1]
    with pytest.raises(problems.TooLarge, match=r"stray bytes|too many chunks"):
        images.decode(file[:start] + stray + file[start:], SHAPE)


def test_stray_bytes_do_not_hide_a_huge_size():
    file = image_files.with_size(image_files.save(PICTURE, "JPEG"), "JPEG", 16_000, 16_000)
    start = jpeg_segments(file)[0]
    with pytest.raises(problems.TooLarge, match="16000x16000"):
        images.decode(file[:start] + b"\0\0" + file[start:], SHAPE)


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"%PDF-1.7", bytes(784), b"II*\0" + bytes(60), b"BM" + bytes(30)], ids=ascii
)
def test_other_content_is_unsupported(body):
    with pytest.raises(problems.UnsupportedFormat):
        images.decode(body, SHAPE)


@pytest.mark.parametrize("format_", image_files.FORMATS)
def test_a_huge_declared_size_is_refused_before_decoding(format_):
    size = (16_000, 16_000)
    file = image_files.with_size(image_files.save(Image.fromarray(PICTURE).convert("RGB"), format_), format_, *size)
    with pytest.raises(problems.TooLarge, match="16000x16000"):
        images.decode(file, SHAPE)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP"])
def test_a_declared_size_of_0_is_malformed(format_):
    with pytest.raises(problems.Malformed):
        images.decode(image_files.with_size(image_files.save(PICTURE, format_), format_, 0, 28), SHAPE)


def test_a_bmp_may_run_from_top_to_bottom():
    file = bytearray(image_files.save(PICTURE, "BMP"))
    file[22:26] = struct.pack("<i", -28)
    np.testing.assert_array_equal(images.decode(file, SHAPE), PICTURE[::-1])


def test_a_run_length_encoded_bmp_is_not_supported():
    file = bytearray(image_files.save(PICTURE, "BMP"))
    file[30] = 1
    with pytest.raises(problems.UnsupportedFormat, match="uncompressed"):
        images.decode(file, SHAPE)


def test_sixteen_bits_per_channel_halve_the_limit():
    just_over = image_files.png_declaring(limits.PIXELS // 2000 // 2 + 1, 2000, depth=16, color=6)
    with pytest.raises(problems.TooLarge):
        images.decode(just_over, SHAPE)


def test_a_file_of_too_many_bytes_is_refused():
    with pytest.raises(problems.TooLarge, match="bytes"):
        images.decode(image_files.save(PICTURE) + bytes(limits.IMAGE_BYTES), SHAPE)


def test_a_lossy_webp_of_too_many_bytes_is_refused():
    noise = np.random.default_rng(0).integers(0, 256, (1100, 1100, 3), np.uint8)
    file = image_files.save(noise, "WEBP", quality=98)
    assert len(file) > limits.WEBP_LOSSY_BYTES
    with pytest.raises(problems.TooLarge, match="lossy"):
        images.decode(file, SHAPE)
    assert images.decode(image_files.save(noise, "WEBP", lossless=True), SHAPE).shape == SHAPE


def png_of_pieces() -> bytes:
    pieces = image_files.chunk(b"teXt", b"a") * (limits.IMAGE_PIECES + 1)
    file = image_files.save(PICTURE)
    return file[:33] + pieces + file[33:]


def jpeg_of_pieces() -> bytes:
    file = image_files.save(PICTURE, "JPEG")
    return file[:2] + b"\xff\xfe\x00\x03a" * limits.IMAGE_PIECES + file[2:]


def jpeg_of_padding() -> bytes:
    file = image_files.save(PICTURE, "JPEG")
    return file[:2] + b"\xff" * limits.IMAGE_PIECES + file[2:]


def jpeg_of_resources() -> bytes:
    file = image_files.save(PICTURE, "JPEG")
    resources = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x02ab" * 1000
    segment = b"\xff\xed" + struct.pack(">H", len(resources) + 2) + resources
    return file[:2] + segment * 20 + file[2:]


def jpeg_of_scans() -> bytes:
    file = image_files.save(PICTURE, "JPEG", progressive=True)
    start = file.index(b"\xff\xda")
    end = file.index(b"\xff", start + 12)
    return file[:start] + file[start:end] * limits.JPEG_SCANS + file[start:]


def gif_of_pieces() -> bytes:
    file = image_files.save(PICTURE, "GIF")
    start = 13 + 3 * 256
    return file[:start] + b"!\xfe" + b"\x01a" * limits.IMAGE_PIECES + b"\0" + file[start:]


@pytest.mark.parametrize(
    "make", [png_of_pieces, jpeg_of_pieces, jpeg_of_padding, jpeg_of_resources, jpeg_of_scans, gif_of_pieces]
)
def test_a_file_of_too_many_pieces_is_refused(make):
    with pytest.raises(problems.TooLarge, match="too many chunks"):
        images.decode(make(), SHAPE)


def test_a_text_chunk_that_unpacks_to_50_mb_is_refused():
    bomb = image_files.chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 9))
    file = image_files.save(PICTURE)
    with pytest.raises(problems.Malformed):
        images.decode(file[:33] + bomb + file[33:], SHAPE)


def test_a_large_jpeg_is_decoded_at_reduced_size():
    picture = np.kron(image_files.texture(30, 20), np.ones((100, 100), np.uint8))
    colors = Image.fromarray(255 - picture).convert("RGB")
    assert colors.width * colors.height > limits.PIXELS
    decoded = images.decode(image_files.save(colors, "JPEG"), SHAPE)
    small = images.decode(image_files.save(colors.resize((200, 300), Image.Resampling.BOX)), SHAPE)
    assert np.abs(decoded.astype(int) - small).mean() < 3


def test_an_encoded_picture_decodes_to_itself():
    np.testing.assert_array_equal(images.decode(images.encode(PICTURE), SHAPE), PICTURE)
