"""The limits of one request, defined only here.

Together they bound what a request takes in a worker beyond its own body, whatever the body declares. Memory: 64 MiB, or
about 70 MB for JSON of fractions, and 320 MiB for a large picture, which only one worker of the service decodes at a
time. Time: a tenth of a second for a picture and a second for a large one, on a current CPU. ``docs/api.md`` lists
the limits for callers.
"""

from __future__ import annotations

# The frontend itself refuses larger bodies. Must equal max_request_size in config.properties.
REQUEST_BYTES = 64 * 1024 * 1024

# Examples (images or vectors) in one request, whatever their format: the whole test set of FashionMNIST.
EXAMPLES = 10_000

# Pixels or numbers of all examples of a request, whatever its format: as float32 they fill REQUEST_BYTES. For examples
# with more than 1677 of them, such as color pictures, this limit is below EXAMPLES.
VALUES = 16 * 1024 * 1024

# Examples to explain in one request: each costs some 50 forward and backward passes.
EXPLAINED = 16

# Bytes of one image file: PIXELS without compression, at 3 bytes per pixel, and some metadata.
IMAGE_BYTES = 40 * 1024 * 1024

# Pixels that an image may declare, checked before it is decoded. A camera of 12 megapixels gives 4032 x 3024 =
# 12,192,768.
PIXELS = 12_500_000

# A JPEG in one scan is decoded at a quarter or an eighth of its size, so that a camera's full resolution is cheap: 50
# megapixels are up to 8192 x 6144 = 50,331,648. Such a picture takes less than an eighth of the time of a PNG's pixels.
JPEG_PIXELS = 51_000_000
JPEG_REDUCTION = 8

# Pixels of all images of a request together: 10,000 images of 100 x 100. Those of such a JPEG are divided by
# JPEG_REDUCTION. A PNG takes 10 to 20 ns per pixel, WebP and AVIF 15 to 25, HEIC 30 to 80.
REQUEST_PIXELS = 100_000_000

# Decoding takes up to 16 bytes per pixel, and 19 for the formats of video codecs, whose decoders hold several copies.
# With more pixels than these, or more bytes, an image is large: one worker of the service decodes it at a time.
LARGE_PIXELS = 4_000_000
LARGE_CODEC_PIXELS = 2_100_000
LARGE_BYTES = 12 * 1024 * 1024

# Memory for decoding an image, beyond a copy of its file, and for a large one. This stops a file whose content is
# larger than it declares.
IMAGE_MEMORY_BYTES = 64 * 1024 * 1024
LARGE_MEMORY_BYTES = 320 * 1024 * 1024

# Scans of a progressive JPEG; encoders write about 10.
JPEG_SCANS = 64

# Bytes between the header segments of a JPEG, which Pillow skips one by one in 0.1 us each.
JPEG_STRAY_BYTES = 65_536

# Bytes of a lossy WebP, AVIF or HEIC file. Video codecs take 70 to 300 ns per byte; phones write up to 4 MB.
CODEC_BYTES = 8 * 1024 * 1024

# Pixels of all pictures that the picture of a HEIC or AVIF file is made of: PIXELS, as many in tiles, and the same
# again for a mask.
ITEM_PIXELS = 4 * PIXELS

# Chunks, segments or blocks of an image file; a PNG of 40 MB has 5000 chunks of 8 kB.
IMAGE_PIECES = 8192

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
