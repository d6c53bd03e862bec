"""How much one request may ask for: the one place of these numbers.

Together they bound what one request takes in a worker to 64 MB beyond its own body, whatever the body says about
itself, and one image to a tenth of a second on a current CPU. ``docs/api.md`` lists them for callers.
"""

from __future__ import annotations

# The frontend refuses larger bodies itself: keep equal to max_request_size in config.properties.
REQUEST_BYTES = 64 * 1024 * 1024

# Examples (images or vectors) in one request, whatever their format.
EXAMPLES = 8192

# Examples whose attributions one request may ask for: each costs some 50 passes forward and back.
EXPLAINED = 16

# Bytes of one image file.
IMAGE_BYTES = 12 * 1024 * 1024

# Pixels that an image may declare, checked before it is decoded: 2000 x 2000. At 4 bytes a pixel this is 16 MB, at
# 20 ns a pixel 80 ms; half of it for PNG with 16 bits a channel.
PIXELS = 4_000_000

# A JPEG in one scan is decoded at a quarter or an eighth of its size, so a camera's whole picture is cheap.
JPEG_PIXELS = 24_000_000

# Scans of a progressive JPEG; encoders write about 10.
JPEG_SCANS = 64

# libwebp's animation decoder, the one that Pillow uses, holds a picture six times: 1920 x 1080 make 50 MB. Lossy WebP
# takes 70 ns for each byte of its file; photographs of that size have half a megabyte.
WEBP_PIXELS = 2_100_000
WEBP_LOSSY_BYTES = 1024 * 1024

# Chunks, segments or blocks of an image file; a PNG of 12 MB has 1500 chunks of 8 kB.
IMAGE_PIECES = 4096

# A JSON body that is parsed as a whole: its bytes, of which two copies are made, and its numbers (829 images of 28 x
# 28). Each takes some 90 bytes until it is a pixel; a string counts for two numbers, a list for one and a half, and
# an object for five or more. A body of nothing but nested lists of numbers, bare or as {"instances": ...}, is parsed in
# pieces, and EXAMPLES limits it.
JSON_BYTES = 8 * 1024 * 1024
JSON_VALUES = 650_000
JSON_PIECE_BYTES = 1024 * 1024

# Bytes of a .npy header; numpy writes 118.
NPY_HEADER_BYTES = 1024

# Bytes before the content of one part of a form; browsers write some 150 and a file's name.
PART_HEADER_BYTES = 4096
