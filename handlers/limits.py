"""The limits of one request, defined only here.

Together they bound what a request takes in a worker: 64 MB of memory beyond its own body, whatever the body declares,
and a tenth of a second per image on a current CPU. ``docs/api.md`` lists the limits for callers.
"""

from __future__ import annotations

# The frontend itself refuses larger bodies. Must equal max_request_size in config.properties.
REQUEST_BYTES = 64 * 1024 * 1024

# Examples (images or vectors) in one request, whatever their format: the whole test set of FashionMNIST.
EXAMPLES = 10_000

# Examples to explain in one request: each costs some 50 forward and backward passes.
EXPLAINED = 16

# Bytes of one image file.
IMAGE_BYTES = 12 * 1024 * 1024

# Pixels that an image may declare, checked before it is decoded: 2000 x 2000. They take 16 MB at 4 bytes per pixel, and
# 80 ms at 20 ns per pixel. For a PNG with 16 bits per channel, the limit is half of that.
PIXELS = 4_000_000

# A JPEG in one scan is decoded at a quarter or an eighth of its size, so a camera's full resolution is cheap.
JPEG_PIXELS = 24_000_000

# Scans of a progressive JPEG; encoders write about 10.
JPEG_SCANS = 64

# Bytes between the header segments of a JPEG, which Pillow skips one by one in 0.1 us each.
JPEG_STRAY_BYTES = 65_536

# libwebp's animation decoder, which Pillow uses, holds six copies of a picture: 50 MB for 1920 x 1080. Decoding lossy
# WebP takes 70 ns per byte of the file; photographs of that size have half a megabyte.
WEBP_PIXELS = 2_100_000
WEBP_LOSSY_BYTES = 1024 * 1024

# Chunks, segments or blocks of an image file; a PNG of 12 MB has 1500 chunks of 8 kB.
IMAGE_PIECES = 4096

# For a JSON body that is parsed as a whole: its bytes, which are copied twice, and its numbers (829 images of 28 x 28).
# Until it is a pixel, each number takes some 90 bytes. A string counts as two numbers, a list as one and a half, and an
# object as five or more. Nested lists of only numbers, bare or as the member "instances" of an object, are parsed in
# pieces, and only EXAMPLES limits them.
JSON_BYTES = 8 * 1024 * 1024
JSON_VALUES = 650_000
# Lists of one number, [9], the densest text, reach JSON_VALUES at 1,040,000 bytes. A piece stays below that.
JSON_PIECE_BYTES = 1024 * 1000

# Bytes of a .npy header; numpy writes 118.
NPY_HEADER_BYTES = 1024

# Bytes before the content of one part of a multipart form; browsers write some 150 and a file's name.
PART_HEADER_BYTES = 4096
