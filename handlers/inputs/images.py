"""Image bytes become the pixels of one example.

Steps::

    bytes ──► image_headers: format and size ──► Pillow, at reduced size if large ──► 8 bits, upright, on white
          ──► grey, opaque and of the model's size: as it is
          ──► anything else: photographs, or with ``prepare=none`` resized only
"""

from __future__ import annotations

import functools
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from handlers import limits, problems
from handlers.inputs import image_headers, photographs

Body = bytes | bytearray | memoryview
Prepare = Literal["auto", "none", "photo"]

# Large pictures are brought near this longest edge first, so that all further steps cost the same for any picture.
WORKING_EDGE = 280

# Pillow unpacks up to 64 MB of text chunks by default.
PngImagePlugin.MAX_TEXT_MEMORY = 4 * 1024 * 1024
# Pillow warns about oddities in files; the log is the operator's, and the file is the caller's.
warnings.filterwarnings("ignore", module="PIL")


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG whose Exif data Pillow does not parse: it would, for a resolution in dots per inch."""

    def _read_dpi_from_exif(self) -> None:
        pass


# Image.open would try these itself, at a tenth of the cost of decoding a small PNG.
_READERS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": _JpegFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
_PNG_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))


def decode(body: Body, shape: tuple[int, int], prepare: Prepare = "auto") -> NDArray[np.uint8]:
    """Decode one image.

    Args:
        body: a PNG, JPEG, WebP, GIF (its first picture) or BMP file, of any mode and size within ``handlers.limits``.
        shape: height and width of the result.
        prepare: ``auto`` takes a grey, opaque image of exactly ``shape`` as it is and converts any other as
            Fashion-MNIST's authors did; ``none`` resizes only; ``photo`` converts always.

    Returns:
        uint8 ``[height, width]``; after a conversion the ground is black.

    Raises:
        problems.UnsupportedFormat: not one of the formats.
        problems.Malformed: one of them, but damaged or cut short.
        problems.TooLarge: more bytes or pixels than ``handlers.limits`` allows.
    """
    if len(body) > limits.IMAGE_BYTES:
        raise problems.TooLarge(f"the image file has {len(body)} bytes; the limit is {limits.IMAGE_BYTES}")
    body = bytes(body)
    if prepare != "photo" and (pixels := bare_png(body, shape)) is not None:
        return pixels
    format_ = image_headers.inspect(body)
    try:
        image = _READERS[format_](io.BytesIO(body))
        plain = image.mode == "L" and "transparency" not in image.info and "exif" not in image.info
        if plain and image.size == shape[::-1] and prepare != "photo":
            return np.frombuffer(image.tobytes(), np.uint8).reshape(shape)
        picture, opaque = _normal(image)
    except MemoryError:
        raise
    # Pillow raises nearly any type for a damaged file.
    except Exception as error:
        raise problems.Malformed(f"the {format_} image is damaged: {str(error)[:200]}") from None
    if prepare == "none":
        # An average over areas gives back a picture that was enlarged by a whole factor.
        return np.asarray(picture.convert("L").resize(shape[::-1], Image.Resampling.BOX))
    if prepare == "auto" and opaque and picture.size == shape[::-1] and _is_grey(picture):
        return np.asarray(picture.convert("L"))
    return photographs.convert(picture.convert("RGB"), shape)


def encode(picture: NDArray[np.uint8]) -> bytes:
    """A picture, uint8 ``[height, width]`` or ``[height, width, 3]``, as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def bare_png(body: bytes | bytearray, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The pixels of a PNG file that holds a grey picture of ``shape`` and nothing else; ``None`` for any other file.

    A file beyond ``limits.IMAGE_BYTES`` is another, too, however little of its data the picture needs.
    Most encoders write such a picture so: one header, one run of data, one end. To read the chunks of a small file
    takes Pillow as long as to decode it.
    """
    if len(body) > limits.IMAGE_BYTES:
        return None
    start, end = _png_header(shape), len(body) - len(_PNG_END)
    data = len(start) + 8
    if not body.startswith(start) or not body.endswith(_PNG_END) or body[data - 4 : data] != b"IDAT":
        return None
    # A length that leads to the end leaves no room for a second chunk.
    if int.from_bytes(body[data - 8 : data - 4], "big") != end - 4 - data:
        return None
    try:
        picture = Image.frombytes("L", shape[::-1], body[data : end - 4], "zip", "L", 0)
    except (ValueError, OSError):
        # Damaged, which the reader of whole files says better.
        return None
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(shape)


@functools.cache
def _png_header(shape: tuple[int, int]) -> bytes:
    """Signature and header of a PNG file with a picture of ``shape``: 8 bits, grey, not interlaced."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", shape[1], shape[0], 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def _normal(image: Image.Image) -> tuple[Image.Image, bool]:
    """The picture as 8-bit L or RGB, upright, on white, near the working size; and whether it was opaque."""
    orientation = _orientation(image.info.get("exif", b""))
    factor = max(image.size) // WORKING_EDGE
    if factor > 1:
        # A JPEG is decoded at 1/2, 1/4 or 1/8, any other file whole. The size asked for keeps the proportions, so that
        # long thin pictures shrink too.
        image.draft(None, (max(image.width // factor, 1), max(image.height // factor, 1)))
    image = _eight_bits(image)
    factor = max(image.size) // WORKING_EDGE
    if factor > 1:
        image = image.reduce(factor)
    opaque = True
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        opaque = alpha.getextrema()[0] == 255
        colours = image.convert(image.mode[:-1])
        if not opaque:
            ground = Image.new(colours.mode, image.size, "white")
            ground.paste(colours, mask=alpha)
            colours = ground
        image = colours
    if orientation in _TRANSPOSITIONS:
        image = image.transpose(_TRANSPOSITIONS[orientation])
    return image, opaque


def _eight_bits(image: Image.Image) -> Image.Image:
    """The picture in one of the modes L, LA, RGB and RGBA."""
    image.load()
    if image.mode.startswith("I"):
        values = np.asarray(image)
        shallow = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            shallow.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
        return shallow
    grey = image.mode in ("L", "LA", "1")
    wanted = ("LA" if grey else "RGBA") if image.has_transparency_data else ("L" if grey else "RGB")
    # Pillow would copy a picture that has the mode already, and a large one counts.
    return image if image.mode == wanted else image.convert(wanted)


def _is_grey(picture: Image.Image) -> bool:
    values = np.atleast_3d(np.asarray(picture))
    return bool((values == values[:, :, :1]).all())


def _orientation(exif: bytes) -> int:
    """The orientation tag of Exif data (1 to 8; 1 if there is none), read without Pillow's parser of whole files."""
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (entries,) = struct.unpack_from(order + "H", data, start)
        for place in range(start + 2, start + 2 + 12 * min(entries, 512), 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", data, place)
            if tag == _ORIENTATION_TAG and kind == 3:
                return int(value)
    except struct.error:
        pass
    return 1
