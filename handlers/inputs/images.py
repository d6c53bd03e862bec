"""Image bytes become the pixels of one example.

Steps::

    bytes ──► image_headers: format and size ──► large_images: memory ──► Pillow ──► 8 bits, upright, on white
          ──► models with a rule for size: resizing
          ──► gray, opaque, of the model's size and not on white: unchanged
          ──► anything else: photographs, or with ``prepare=none`` resized only
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import struct
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from handlers import limits, problems
from handlers.inputs import image_headers, large_images, photographs, resizing
from handlers.signature import Resize

Body = bytes | bytearray | memoryview
Prepare = Literal["auto", "none", "photo"]

# Large pictures are first reduced to about this longest edge, so that the further steps cost the same for any picture.
# It is 10 times the edge of the data set's pictures.
_WORKING_EDGE_PX = 280
# For models with a rule for size it is at least this many times their pictures' longest edge, so that none is blurred.
_WORKING_FACTOR = 4

_STDERR = 2
# Pillow's default, 64 MB of unpacked text chunks, is all the memory that one request may take (handlers.limits).
PngImagePlugin.MAX_TEXT_MEMORY = 4 * 1024 * 1024
# A worker has one core (serving.torchserve.jvm.environment), and each thread's stack would count as memory.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# Pillow warns about oddities in callers' files, which would fill the operator's log.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG reader that does not parse Exif data; Pillow's own parses it to find the dots per inch."""

    def _read_dpi_from_exif(self) -> None:
        pass


class _TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF reader that parses no directories beside the picture's own, and logs nothing."""

    def load(self) -> Any:
        with _silent():
            return super().load()

    def load_end(self) -> None:
        ImageOps.exif_transpose(self, in_place=True)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Discard what is written to the standard error stream: by libtiff up to a line for each row of a damaged file."""
    stream = os.dup(_STDERR)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), _STDERR)
        yield
    finally:
        os.dup2(stream, _STDERR)
        os.close(stream)


def _heic(file: io.BytesIO) -> Image.Image:
    """Decode a HEIC file. Its container's rotation is applied; the Exif orientation, which repeats that, is ignored."""
    # Imported here because most workers never need it. The package's own classes also read metadata, and 1.4.0 ends the
    # process on metadata whose type is no UTF-8.
    import _pi_heif

    pictures = [picture for picture in _pi_heif.load_file(file.getvalue(), *_HEIC_OPTIONS) if picture is not None]
    if not pictures:
        raise problems.Malformed("the HEIC image contains no picture")
    picture = next((picture for picture in pictures if picture.primary), pictures[0])
    pixels = picture.data
    # Only decoding shows the final size.
    size, mode = picture.size_mode
    return Image.frombytes(mode, size, pixels, "raw", mode, picture.stride)


# Image.open tries each format in turn, which costs a tenth of decoding a small PNG.
_READERS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": _JpegFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": _TiffFile,
    "HEIC": _heic,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
# Their libraries allocate what the content declares, which may be more than what the container declares.
_LIMITED_FORMATS = ("TIFF", "HEIC", "AVIF")
# In libheif's message, if an allocation would be more than the container declares. libheif refuses that itself, so that
# a HEIC does not reach the limit on memory, where libde265 would end the process.
_HEIC_OUT_OF_MEMORY = "Memory allocation error"
# No threads; 8 bits per channel; RGB and not BGR; rows with padding, which frombytes skips; gray of more than
# 8 bits as 16; any decoder; and libheif's limits stay on.
_HEIC_OPTIONS = (0, True, False, False, True, "", False)
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
# A picture of the model's size whose four corners are this light has a white background. None of the data set's 70,000
# pictures has.
_WHITE_CORNER = 200
_PNG_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))


class Decoder:
    """Decodes the images of one request.

    Args:
        prepare: ``auto`` leaves a gray, opaque image of exactly the model's size unchanged unless it is on white, and
            converts any other as Fashion-MNIST's authors did; ``none`` only resizes; ``photo`` always converts.
        resize: of the model's input. With a rule for size nothing is converted, whatever ``prepare`` is.

    Attributes:
        photographs: the outlines of the photographs among them, as of ``photographs.Conversion``, by the bytes of the
            pixels that ``decode`` returned.
        has_converted: whether any image was converted as ``photographs`` does.
    """

    # The request's pixels so far, and the end of its wait for other workers.
    _effort = 0
    _until = 0.0

    def __init__(self, prepare: Prepare = "auto", resize: Resize = "convert") -> None:
        self._prepare = prepare
        self._resize = resize
        self.photographs: dict[bytes, Image.Image] = {}
        self.has_converted = False

    def decode(self, body: Body, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Decode one image.

        Args:
            body: an image file in a format of ``image_headers.NAMES``, of any mode and size within ``handlers.limits``.
                Of several pictures, the first or the primary one is decoded.
            shape: height and width of the result, or 3, height and width.

        Returns:
            uint8 of ``shape``; after a conversion the background is black.

        Raises:
            problems.Unprocessable: ``prepare`` is ``photo``, but the model's pictures are never converted.
            problems.UnsupportedFormat: not an accepted format.
            problems.Malformed: an accepted format, but damaged or truncated.
            problems.TooLarge: more bytes or pixels than ``handlers.limits`` allows.
            problems.Unavailable: other workers decode large images.
        """
        if self._resize != "convert" and self._prepare == "photo":
            raise problems.Unprocessable(
                "prepare=photo is for models whose pictures are converted; this model's are only resized"
            )
        if len(body) > limits.IMAGE_BYTES:
            raise problems.TooLarge(
                f"the image file is too large ({len(body)} bytes, limit {limits.IMAGE_BYTES}); {problems.SMALLER_IMAGE}"
            )
        # A large file is copied in its turn only.
        if len(body) <= limits.LARGE_BYTES or isinstance(body, memoryview):
            body = bytes(body)
        size = shape[-2], shape[-1]
        if self._prepare != "photo" and len(shape) == 2 and (pixels := bare_png(body, size)) is not None:
            return pixels
        header = image_headers.inspect(body)
        self._effort += header.effort
        if self._effort > limits.REQUEST_PIXELS:
            raise problems.TooLarge(
                f"the images of the request have more than {limits.REQUEST_PIXELS} pixels together; send fewer at "
                f"once, or {problems.SMALLER_IMAGE}"
            )
        edge = _WORKING_EDGE_PX if self._resize == "convert" else max(_WORKING_EDGE_PX, _WORKING_FACTOR * max(shape))
        if header.is_large:
            self._until = self._until or time.monotonic() + large_images.WAIT_S
            with large_images.turn(self._until), large_images.memory_limit(limits.LARGE_MEMORY_BYTES + len(body)):
                picture, outline = _read(body, header, edge)
        elif header.format in _LIMITED_FORMATS:
            with large_images.memory_limit(limits.IMAGE_MEMORY_BYTES + len(body)):
                picture, outline = _read(body, header, edge)
        else:
            picture, outline = _read(body, header, edge)
        if self._resize != "convert":
            return resizing.resized(picture, shape, self._resize)
        unconverted = _unconverted(picture, outline, size, self._prepare)
        if unconverted is not None:
            return unconverted
        self.has_converted = True
        rgb = picture.convert("RGB")
        if outline is not None:
            return photographs.cut_out(rgb, outline, size)
        conversion = photographs.convert(rgb, size, always_negate=self._prepare == "photo")
        if conversion.outline:
            self.photographs[conversion.pixels.tobytes()] = conversion.outline
        return conversion.pixels


def decode(
    body: Body, shape: tuple[int, ...], prepare: Prepare = "auto", resize: Resize = "convert"
) -> NDArray[np.uint8]:
    """Decode a request's only image, as ``Decoder.decode``."""
    return Decoder(prepare, resize).decode(body, shape)


def _read(body: bytes | bytearray, header: image_headers.Header, edge: int) -> tuple[Image.Image, Image.Image | None]:
    """The picture and its outline, as of ``_normal``."""
    try:
        image = _READERS[header.format](io.BytesIO(body))
        width, height = image.size
        if width * height > header.pixels:
            raise problems.Malformed(f"the {header.format} image contains a larger picture than it declares")
        return _normal(image, edge)
    except problems.Problem:
        raise
    except Exception as error:  # noqa: BLE001 (Pillow raises nearly any type for a damaged file)
        if isinstance(error, MemoryError) or _HEIC_OUT_OF_MEMORY in str(error):
            raise _too_much_memory(error, header) from None
        raise problems.Malformed(f"the {header.format} image is damaged: {str(error)[:200]}") from None


def _unconverted(
    picture: Image.Image, outline: Image.Image | None, shape: tuple[int, int], prepare: Prepare
) -> NDArray[np.uint8] | None:
    """The pixels of a picture that needs no conversion; ``None`` for others. ``outline`` is that of transparency."""
    if prepare == "none":
        # Averaging areas restores a picture that was enlarged by a whole factor.
        return np.asarray(picture.convert("L").resize(shape[::-1], Image.Resampling.BOX))
    if outline is None and prepare == "auto" and picture.size == shape[::-1] and _is_gray(picture):
        pixels = np.asarray(picture.convert("L"))
        if not _has_white_corners(pixels):
            return pixels
    return None


def _too_much_memory(error: Exception, header: image_headers.Header) -> Exception:
    """The problem of an image that needs more memory than allowed; the error itself if the worker has none."""
    if not header.is_large and header.format not in _LIMITED_FORMATS:
        return error
    return problems.TooLarge(f"the {header.format} image takes too much memory; {problems.SMALLER_IMAGE}")


def encode(picture: NDArray[np.uint8]) -> bytes:
    """Write a picture, uint8 ``[height, width]`` or ``[height, width, channels]``, as a PNG file.

    Two channels are gray and alpha, three are RGB.
    """
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def encode_outline(outline: Image.Image) -> bytes:
    """Write an outline, as of ``photographs.Conversion``, as a PNG file: white, and transparent beside the item."""
    alpha = np.asarray(outline)
    return encode(np.stack([np.full_like(alpha, 255), alpha], -1))


def bare_png(body: bytes | bytearray, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Read a PNG file of one header, one data chunk and one end, with a gray picture of ``shape``.

    Most encoders write such a picture this way. Pillow's reader takes as long for a small file's chunks as for its
    pixels.

    Returns:
        The pixels; ``None`` for any other file, and for one beyond ``limits.IMAGE_BYTES``.
    """
    if len(body) > limits.IMAGE_BYTES:
        return None
    start, end = _png_header(shape), len(body) - len(_PNG_END)
    data = len(start) + 8
    if not body.startswith(start) or not body.endswith(_PNG_END) or body[data - 4 : data] != b"IDAT":
        return None
    # A data chunk that reaches to the end leaves no room for another chunk.
    if int.from_bytes(body[data - 8 : data - 4], "big") != end - 4 - data:
        return None
    try:
        picture = Image.frombytes("L", shape[::-1], body[data : end - 4], "zip", "L", 0)
    except (ValueError, OSError):
        # The file is damaged; ``decode`` reports that better.
        return None
    pixels = np.frombuffer(picture.tobytes(), np.uint8).reshape(shape)
    return None if _has_white_corners(pixels) else pixels


def _has_white_corners(pixels: NDArray[np.uint8]) -> bool:
    """Whether the picture's background is white, unlike the data set's."""
    return pixels.item(0) >= _WHITE_CORNER and bool((pixels[[0, -1, -1], [-1, 0, -1]] >= _WHITE_CORNER).all())


@functools.cache
def _png_header(shape: tuple[int, int]) -> bytes:
    """Signature and header of a PNG file with a picture of ``shape``: 8 bits, gray, not interlaced."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", shape[1], shape[0], 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def _normal(image: Image.Image, edge: int) -> tuple[Image.Image, Image.Image | None]:
    """Convert to 8-bit L or RGB, upright, on white, near the edge in pixels; also return what was opaque, as L."""
    orientation = _orientation(image.info.get("exif", b""))
    factor = max(image.size) // edge
    if factor > 1:
        # Only a JPEG can be decoded at 1/2, 1/4 or 1/8. The requested size keeps the proportions, so that long thin
        # pictures shrink too.
        image.draft(None, (max(image.width // factor, 1), max(image.height // factor, 1)))
    image = _eight_bits(image)
    factor = max(image.size) // edge
    if factor > 1:
        image = image.reduce(factor)
    outline = None
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        flat = image.convert(image.mode[:-1])
        if np.asarray(alpha).min() < 255:
            outline = alpha
            background = Image.new(flat.mode, image.size, "white")
            background.paste(flat, mask=alpha)
            flat = background
        image = flat
    if orientation in _TRANSPOSITIONS:
        image = image.transpose(_TRANSPOSITIONS[orientation])
        outline = outline and outline.transpose(_TRANSPOSITIONS[orientation])
    return image, outline


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert to one of the modes L, LA, RGB and RGBA."""
    image.load()
    if image.mode.startswith("I"):
        values = np.asarray(image)
        shallow = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            shallow.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
        return shallow
    mode = "L" if image.mode in ("L", "LA", "1") else "RGB"
    if image.has_transparency_data:
        mode += "A"
    # Pillow copies a picture even if it has the mode already, which is slow for a large one.
    return image if image.mode == mode else image.convert(mode)


def _is_gray(picture: Image.Image) -> bool:
    if picture.mode == "L":
        return True
    values = np.atleast_3d(np.asarray(picture))
    return bool((values == values[:, :, :1]).all())


def _orientation(exif: bytes) -> int:
    """The orientation tag of Exif data, 1 to 8; 1 if there is none. Pillow's parser would read all of the data."""
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
