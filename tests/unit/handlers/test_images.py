"""Image files of every format, mode and orientation, and damaged or mislabeled files."""

import io
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from handlers import limits, problems
from handlers.inputs import images, large_images
from serving.settings import ROOT
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


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
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
    settings = {"lossless": True} if format_ == "WEBP" else {"quality": 100} if format_ in ("JPEG", "AVIF") else {}
    decoded = images.decode(image_files.save(turned.convert("RGB"), format_, exif=exif, **settings), SHAPE, "none")
    upright = images.decode(image_files.save(picture), SHAPE, "none")
    assert np.abs(decoded.astype(int) - upright).max() <= 2


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirrored", [False, True], ids=["top to bottom", "left to right"])
def test_a_heic_is_turned_as_its_container_says(quarters, mirrored):
    turned = np.rot90(image_files.heic_picture(), quarters)
    upright = turned[:, ::-1] if mirrored else turned[::-1]
    for prepare in ("none", "auto"):
        decoded = images.decode(image_files.turned_heic(quarters, mirrored), SHAPE, prepare)
        expected = images.decode(image_files.save(upright), SHAPE, prepare)
        assert np.abs(decoded.astype(int) - expected).mean() < 1


def test_a_heic_of_tiles_is_read():
    decoded = images.decode(image_files.stored("tiles.heic"), SHAPE, "none")
    expected = images.decode(image_files.save(image_files.heic_picture()), SHAPE, "none")
    assert np.abs(decoded.astype(int) - expected).mean() < 1


def test_transparent_pixels_of_heic_and_avif_become_white():
    picture = image_files.heic_picture()
    alpha = Image.fromarray(np.where(picture > 60, 255, 0).astype(np.uint8))
    avif = image_files.save(Image.merge("RGBA", [*[Image.fromarray(picture)] * 3, alpha]), "AVIF", quality=100)
    expected = images.decode(image_files.save(np.where(picture > 60, picture, 255).astype(np.uint8)), SHAPE, "none")
    for file in (avif, image_files.stored("transparent.heic")):
        assert np.abs(images.decode(file, SHAPE, "none").astype(int) - expected).mean() < 4


def test_a_brand_of_any_codec_is_named_by_the_compatible_brands():
    file = image_files.stored("tiles.heic")
    assert file[8:12] == b"heic"
    assert b"mif1" in file[16:32]
    expected = images.decode(file, SHAPE)
    np.testing.assert_array_equal(images.decode(file[:8] + b"mif1" + file[12:], SHAPE), expected)
    with pytest.raises(problems.UnsupportedFormat, match="HEIF sequence"):
        images.decode(file[:8] + b"hevc" + file[12:], SHAPE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_tiff_files_of_any_mode_and_compression_are_read(mode, compression):
    picture = Image.fromarray(np.kron(PICTURE, np.ones((4, 4), np.uint8)))
    if compression == "jpeg" and mode not in ("L", "RGB", "CMYK"):
        pytest.skip("not a combination that exists")
    changed = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
    file = image_files.save(changed, "TIFF", compression=compression)
    expected = np.asarray(changed.convert("L")).reshape(28, 4, 28, 4).mean((1, 3)) if mode == "1" else PICTURE
    assert np.abs(images.decode(file, SHAPE, "none") - expected.astype(int)).max() <= (
        4 if compression == "jpeg" else 1
    )


def tiff_with(tag: int, value: int) -> bytes:
    """A TIFF with one short value in its directory replaced."""
    file = bytearray(image_files.save(PICTURE, "TIFF"))
    place = next(place for place in range(10, len(file), 12) if file[place : place + 2] == struct.pack("<H", tag))
    file[place + 2 : place + 12] = struct.pack("<HIHH", 3, 1, value, 0)
    return bytes(file)


@pytest.mark.parametrize(
    ("tag", "value"),
    [(259, 6), (259, 50000), (258, 12), (258, 32), (262, 8), (262, 32803)],
    ids=["old JPEG", "zstd", "12 bits", "32 bits", "Lab", "raw camera"],
)
def test_rare_kinds_of_tiff_are_not_supported(tag, value):
    with pytest.raises(problems.UnsupportedFormat, match=f"this kind of TIFF.*{value}"):
        images.decode(tiff_with(tag, value), SHAPE)


@pytest.mark.parametrize("compression", ["group4", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_a_damaged_tiff_writes_nothing_to_the_log(capfd, compression):
    picture = Image.fromarray(PICTURE).convert("1" if compression == "group4" else "L")
    file = bytearray(image_files.save(picture, "TIFF", compression=compression))
    for place in range(120, len(file), 7):
        file[place] ^= 0x55
        outcome(bytes(file))
    assert capfd.readouterr() == ("", "")


def test_a_tiff_of_floats_is_not_supported():
    with pytest.raises(problems.UnsupportedFormat, match="32 bits, sample format 3"):
        images.decode(image_files.save(PICTURE.astype(np.float32), "TIFF"), SHAPE)


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
    np.testing.assert_array_equal(images.decode(catalog, SHAPE, "none"), 255 - PICTURE)
    converted = images.decode(catalog, SHAPE, "photo")
    assert (images.decode(image_files.save(PICTURE), SHAPE, "photo") != PICTURE).any()
    # Black where the photograph was white, and bright where the item was dark.
    assert converted[0, 0] == 0
    assert converted[14, 14] > 150


def test_the_first_picture_of_an_animation_is_used():
    frames = [Image.fromarray(image_files.texture(seed=seed)) for seed in range(3)]
    for format_ in ("GIF", "PNG", "TIFF"):
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
    "body", [b"", b"hello", b"%PDF-1.7", bytes(784), b"II+\0" + bytes(60), b"BM" + bytes(30)], ids=ascii
)
def test_other_content_is_unsupported(body):
    with pytest.raises(problems.UnsupportedFormat):
        images.decode(body, SHAPE)


@pytest.mark.parametrize("format_", image_files.FORMATS)
def test_a_huge_declared_size_is_refused_before_decoding(format_):
    size = (16_000, 16_000)
    file = image_files.with_size(image_files.save(Image.fromarray(PICTURE).convert("RGB"), format_), format_, *size)
    with pytest.raises(problems.TooLarge, match=r"16000x16000.*smaller picture.*the answer is the same"):
        images.decode(file, SHAPE)


def test_the_pictures_that_a_heic_is_made_of_count():
    file = bytearray(image_files.stored("tiles.heic"))
    # The size of its six tiles.
    place = file.rindex(b"ispe") + 8
    file[place : place + 8] = struct.pack(">II", 3000, 4000)
    with pytest.raises(problems.TooLarge, match=r"made of too many pictures.*the answer is the same"):
        images.decode(file, SHAPE)


def test_a_heic_that_is_made_of_itself_is_refused():
    file = bytearray(image_files.stored("tiles.heic"))
    (primary,) = struct.unpack_from(">H", file, file.index(b"pitm") + 8)
    # The reference's source and the number of its targets come before these.
    struct.pack_into(">H", file, file.index(b"dimg") + 8, primary)
    with pytest.raises(problems.TooLarge, match="too many chunks"):
        images.decode(file, SHAPE)


def test_the_largest_size_that_a_heic_declares_counts():
    file = image_files.with_size(image_files.stored("tiles.heic"), "HEIC", 16_000, 16_000)
    with pytest.raises(problems.TooLarge, match="16000x16000"):
        images.decode(file, SHAPE)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP", "TIFF", "AVIF"])
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


CAMERA = (4032, 3024)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_a_png_of_12_megapixels_is_read(mode):
    values = np.kron(255 - image_files.texture(21, 28), np.ones((144, 144), np.uint8))
    picture = Image.fromarray(values.astype(np.uint16) * 257 if mode == "I;16" else values)
    assert picture.size == CAMERA
    file = image_files.save(picture if mode == "I;16" else picture.convert(mode), compress_level=1)
    small = images.decode(image_files.save(values[72::144, 72::144].repeat(10, 0).repeat(10, 1)), SHAPE)
    assert np.abs(images.decode(file, SHAPE).astype(int) - small).mean() < 3


@pytest.mark.parametrize(
    ("format_", "settings"),
    [
        ("JPEG", {"progressive": True, "subsampling": 0}),
        ("WEBP", {"method": 0}),
        ("WEBP", {"method": 0, "lossless": True, "quality": 0}),
        ("AVIF", {"speed": 10}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("GIF", {}),
    ],
    ids=["progressive JPEG", "WebP", "lossless WebP", "AVIF", "TIFF", "GIF"],
)
def test_12_megapixels_are_read(format_, settings):
    assert images.decode(image_files.save(Image.new("RGB", CAMERA, "navy"), format_, **settings), SHAPE).shape == SHAPE


def test_a_jpeg_of_50_megapixels_is_read():
    assert images.decode(image_files.save(Image.new("RGB", (8192, 6144), "navy"), "JPEG"), SHAPE).shape == SHAPE


# In a process of its own, because free memory of this one would not count.
DECODING = """
import sys
from handlers.inputs import images
from tests.support import image_files, measured_memory
format_, width, height = sys.argv[1], *map(int, sys.argv[2:])
file = image_files.stored(f"larger_than_declared.{format_.lower()}.gz")
file = image_files.with_size(file, format_, width, height)
images.decode(image_files.stored("tiles.heic"), (28, 28))
memory = measured_memory.Memory()
memory.start()
try:
    images.decode(file, (28, 28))
except Exception as error:
    print(type(error).__name__, memory.grown())
"""


@pytest.mark.parametrize(
    ("size", "limit"),
    [((64, 64), limits.IMAGE_MEMORY_BYTES), (CAMERA, limits.LARGE_MEMORY_BYTES)],
    ids=["64x64", "12 MP"],
)
@pytest.mark.parametrize(("format_", "problem"), [("HEIC", "TooLarge"), ("AVIF", "Malformed")])
def test_a_file_that_contains_a_larger_picture_than_it_declares_is_refused(format_, problem, size, limit):
    command = [sys.executable, "-c", DECODING, format_, *map(str, size)]
    name, growth = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert name == problem
    assert int(growth) <= limit


def test_the_limit_on_memory_ends_with_the_image():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    for file in (image_files.save(PICTURE, "AVIF"), image_files.save(PICTURE, "AVIF")[:-20]):
        outcome(file)
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


def out_of_memory(_: object) -> Image.Image:
    raise MemoryError


def test_an_image_that_takes_too_much_memory_is_refused(monkeypatch):
    for format_ in ("PNG", "TIFF"):
        monkeypatch.setitem(images._READERS, format_, out_of_memory)
    for file in (image_files.save(Image.new("L", CAMERA)), image_files.save(PICTURE, "TIFF")):
        with pytest.raises(problems.TooLarge, match=r"too much memory.*the answer is the same"):
            images.decode(file, SHAPE)
    # A small PNG has no limit, so here the worker's memory is exhausted.
    with pytest.raises(MemoryError):
        images.decode(image_files.save(PICTURE), SHAPE, "photo")


def test_one_large_image_is_decoded_at_a_time(monkeypatch):
    monkeypatch.setattr(large_images, "WAIT_S", 0.05)
    large = image_files.save(Image.new("L", CAMERA))
    with large_images.turn(0):
        with pytest.raises(problems.Unavailable, match="other large images"):
            images.decode(large, SHAPE)
        images.decode(image_files.save(Image.new("L", (2000, 2000))), SHAPE)
    images.decode(large, SHAPE)


def test_the_images_of_a_request_have_a_limit_together(monkeypatch):
    assert limits.REQUEST_PIXELS >= limits.EXAMPLES * 100 * 100
    monkeypatch.setattr(limits, "REQUEST_PIXELS", 3 * 90 * 70)
    # A PNG counts as a whole, a JPEG as an eighth.
    for format_, count in (("PNG", 3), ("JPEG", 24)):
        file = image_files.save(image_files.texture(90, 70), format_)
        decoder = images.Decoder()
        for _ in range(count):
            decoder.decode(file, SHAPE)
        with pytest.raises(problems.TooLarge, match=r"together.*smaller picture.*the answer is the same"):
            decoder.decode(file, SHAPE)


def test_a_file_of_too_many_bytes_is_refused():
    with pytest.raises(problems.TooLarge, match="bytes"):
        images.decode(image_files.save(PICTURE) + bytes(limits.IMAGE_BYTES), SHAPE)


def test_a_lossy_webp_of_too_many_bytes_is_refused(monkeypatch):
    monkeypatch.setattr(limits, "CODEC_BYTES", 1024 * 1024)
    noise = np.random.default_rng(0).integers(0, 256, (1100, 1100, 3), np.uint8)
    file = image_files.save(noise, "WEBP", quality=98)
    assert len(file) > limits.CODEC_BYTES
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


def heic_of_pieces() -> bytes:
    file = image_files.stored("tiles.heic")
    return file + struct.pack(">I4s", 8, b"free") * limits.IMAGE_PIECES


def tiff_of_pieces() -> bytes:
    file = image_files.save(PICTURE, "TIFF")
    return file[:8] + struct.pack("<H", limits.IMAGE_PIECES + 1) + file[10:]


def tiff_of_strips() -> bytes:
    strips = struct.pack("<HHII", 273, 4, limits.IMAGE_PIECES + 1, 8)
    file = image_files.save(PICTURE, "TIFF")
    place = file.index(struct.pack("<H", 273))
    return file[:place] + strips + file[place + 12 :]


@pytest.mark.parametrize(
    "make",
    [
        *(png_of_pieces, jpeg_of_pieces, jpeg_of_padding, jpeg_of_resources, jpeg_of_scans, gif_of_pieces),
        *(heic_of_pieces, tiff_of_pieces, tiff_of_strips),
    ],
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
    picture = np.kron(image_files.texture(30, 20), np.ones((160, 160), np.uint8))
    colors = Image.fromarray(255 - picture).convert("RGB")
    assert colors.width * colors.height > limits.PIXELS
    decoded = images.decode(image_files.save(colors, "JPEG"), SHAPE)
    small = images.decode(image_files.save(colors.resize((200, 300), Image.Resampling.BOX)), SHAPE)
    assert np.abs(decoded.astype(int) - small).mean() < 3


def test_an_encoded_picture_decodes_to_itself():
    np.testing.assert_array_equal(images.decode(images.encode(PICTURE), SHAPE), PICTURE)


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
@pytest.mark.parametrize("prepare", ["auto", "photo", "none"])
def test_a_picture_of_the_models_size_on_white_is_negated(mode, prepare):
    original = np.zeros(SHAPE, np.uint8)
    original[:, 4:24] = 120
    file = image_files.save(Image.fromarray(255 - original).convert(mode), "PNG")
    expected = 255 - original if prepare == "none" else original
    np.testing.assert_array_equal(images.decode(file, SHAPE, prepare), expected)
