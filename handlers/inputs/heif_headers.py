"""Checks of the header of a HEIC or AVIF file, before any of it is decoded.

Such a file holds *items*. Its primary item is a coded picture, or is made of other items: the tiles of a grid, the
layers of an overlay, a mask. A reference to an item takes 2 bytes and may cost the decoding of a picture, so that the
pixels behind all references are added up.

Sources: ISO/IEC 14496-12 (boxes) and ISO/IEC 23008-12 (items, their properties and references).
"""

from __future__ import annotations

import collections
import struct
from collections.abc import Iterator

from handlers import limits, problems

# Sizes of a box with another meaning: 8 bytes after its name hold the size, or it reaches to the end.
_SIZE_FOLLOWS, _TO_THE_END = 1, 0
# Version and flags, with which the content of some boxes starts. The version is the first byte.
_FULL_BOX_BYTES = 4
# The mask of a property's number, in 1 or 2 bytes; the bit above it says whether a reader must know the property.
_NARROW_NUMBER, _WIDE_NUMBER = 0x7F, 0x7FFF
# References: an item is made of others, or is a mask of another.
_MADE_OF, _MASK_OF = b"dimg", b"auxl"
# Items within items: a grid within a picture with more brightness levels is 2.
_DEPTH = 8


def size(body: bytes | bytearray, format_: str) -> tuple[int, int]:
    """The largest width and height that the file declares: of its picture, its tiles, its thumbnail or its masks.

    Raises:
        problems.Malformed: truncated or contradictory.
        problems.TooLarge: the primary picture is made of more pixels or items than ``handlers.limits`` allows.
        IndexError, ValueError, struct.error: truncated within a box.
    """
    header = _Header(body, format_)
    if not header.sizes:
        raise problems.Malformed(f"the {format_} file declares no picture's size")
    largest = max(header.sizes, key=lambda size: size[0] * size[1])
    # Without a valid primary item, another one is decoded.
    items = [header.primary] if header.primary in header.item_sizes else list(header.item_sizes)
    if largest[0] * largest[1] <= limits.PIXELS and max(map(header.effort, items), default=0) > limits.ITEM_PIXELS:
        raise problems.TooLarge(
            f"the {format_} image is made of too many pictures (limit {limits.ITEM_PIXELS} pixels together); "
            f"{problems.SMALLER_IMAGE}"
        )
    return largest


class _Header:
    """The items of a file.

    Attributes:
        sizes: all sizes that the file declares.
        primary: number of the primary item; -1 if there is none.
        item_sizes: by number of the item.
    """

    def __init__(self, body: bytes | bytearray, format_: str) -> None:
        self._body = body
        self._format = format_
        self._pieces = 0
        self._efforts: dict[int, int] = {}
        # By number of an item, those that are decoded with it.
        self._parts: dict[int, list[int]] = collections.defaultdict(list)
        self.sizes: list[tuple[int, int]] = []
        self.primary = -1
        self.item_sizes: dict[int, tuple[int, int]] = {}
        for name, start, end in self._boxes(0, len(body)):
            if name == b"meta":
                self._read_meta(start + _FULL_BOX_BYTES, end)

    def effort(self, item: int, depth: int = 0) -> int:
        """The pixels of an item and of all that are decoded with it."""
        if depth > _DEPTH:
            raise self._too_many_pieces()
        if item not in self._efforts:
            width, height = self.item_sizes.get(item, (0, 0))
            parts = sum(self.effort(part, depth + 1) for part in self._parts.get(item, []))
            self._efforts[item] = width * height + parts
        return self._efforts[item]

    def _read_meta(self, start: int, end: int) -> None:
        for name, first, last in self._boxes(start, end):
            if name == b"pitm":
                (self.primary,) = struct.unpack_from(">I" if self._body[first] else ">H", self._body, first + 4)
            elif name == b"iref":
                self._read_references(first, last)
            elif name == b"iprp":
                self._read_properties(first, last)

    def _read_references(self, start: int, end: int) -> None:
        code = "I" if self._body[start] else "H"
        for name, first, _ in self._boxes(start + _FULL_BOX_BYTES, end):
            source, count = struct.unpack_from(f">{code}H", self._body, first)
            self._count(count)
            targets = struct.unpack_from(f">{count}{code}", self._body, first + struct.calcsize(f">{code}H"))
            if name == _MADE_OF:
                self._parts[source] += targets
            elif name == _MASK_OF:
                for target in targets:
                    self._parts[target].append(source)

    def _read_properties(self, start: int, end: int) -> None:
        properties: list[tuple[int, int] | None] = []
        for name, first, last in self._boxes(start, end):
            if name == b"ipco":
                for kind, place, _ in self._boxes(first, last):
                    is_size = kind == b"ispe"
                    properties.append(struct.unpack_from(">II", self._body, place + 4) if is_size else None)
                self.sizes += [size for size in properties if size]
            elif name == b"ipma":
                self._read_associations(first, properties)

    def _read_associations(self, start: int, properties: list[tuple[int, int] | None]) -> None:
        """Read the properties of each item, which have numbers from 1."""
        version_and_flags, count = struct.unpack_from(">II", self._body, start)
        item_code = "I" if version_and_flags >> 24 else "H"
        number_code, mask = ("H", _WIDE_NUMBER) if version_and_flags & 1 else ("B", _NARROW_NUMBER)
        self._count(count)
        place = start + 8
        for _ in range(count):
            item, numbers = struct.unpack_from(f">{item_code}B", self._body, place)
            place += struct.calcsize(f">{item_code}B")
            for number in struct.unpack_from(f">{numbers}{number_code}", self._body, place):
                if 0 < number & mask <= len(properties) and (size := properties[(number & mask) - 1]):
                    self.item_sizes[item] = size
            place += struct.calcsize(f">{numbers}{number_code}")

    def _boxes(self, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """The name, start and end of the content of each box between two places."""
        while place != end:
            self._count(1)
            size, header = *struct.unpack_from(">I", self._body, place), 8
            if size == _SIZE_FOLLOWS:
                size, header = *struct.unpack_from(">Q", self._body, place + 8), 16
            elif size == _TO_THE_END:
                size = end - place
            if size < header or place + size > end:
                raise problems.Malformed(f"the {self._format} image is truncated")
            yield bytes(self._body[place + 4 : place + 8]), place + header, place + size
            place += size

    def _count(self, pieces: int) -> None:
        self._pieces += pieces
        if self._pieces > limits.IMAGE_PIECES:
            raise self._too_many_pieces()

    def _too_many_pieces(self) -> problems.TooLarge:
        return problems.TooLarge(
            f"the {self._format} image has too many chunks, boxes or references; save it again without metadata"
        )
