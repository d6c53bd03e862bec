"""How much one request may ask for: the one place of these numbers.

They bound the memory and time that one request can take in a worker: at most 64 MB beyond the body itself, whatever
the body says about itself. ``docs/api.md`` lists them for callers.
"""

from __future__ import annotations

# The frontend refuses larger bodies itself: keep equal to max_request_size in config.properties.
REQUEST_BYTES = 64 * 1024 * 1024

# Examples (images or vectors) in one request, whatever their format.
EXAMPLES = 8192

# Pixels that one image may declare, checked before it is decoded.
PIXELS = 12_000_000

# Values (numbers, strings, lists, objects) in one JSON body: each may take some 60 bytes while it is parsed.
JSON_VALUES = 1_000_000

# Bytes of a .npy header; numpy writes 118.
NPY_HEADER_BYTES = 1024
