"""Bounds the memory that decoding images takes in all workers of a service together.

Each worker may take ``limits.IMAGE_MEMORY_BYTES``. A large image takes more. Only one worker decodes such an image at a
time, so that the whole service takes ``limits.LARGE_MEMORY_BYTES`` more at most.

libde265, which decodes HEIC, ends the process where memory runs out; the other libraries report it. So a HEIC must not
reach its limit: ``heif_headers`` bounds what its items add up to, and libheif what each of them contains. 12 megapixels
of the largest kind (12 bits, 4:4:4, alpha) take 240 MiB.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from handlers import problems

# The workers of a service share a private folder for temporary files (serving.torchserve.jvm.environment). Elsewhere
# another user's file of this name could not be opened.
_FILE_NAME = f"large-image-{os.getuid()}.lock"
_POLL_PAUSE_S = 0.005
# A request's wait for other workers. With the requests before it in the batch (_DECODING_S in handlers/classifier.py)
# and its own images, it ends before TorchServe replaces the worker (response_timeout_s in models/catalog.py).
WAIT_S = 5.0

_SIZES = Path("/proc/self/statm")
# The place of data and stack in that file, in pages.
_DATA_FIELD = 5


@contextlib.contextmanager
def turn(until: float) -> Iterator[None]:
    """Keep other workers from decoding a large image. The kernel releases the lock of a worker that ends.

    Args:
        until: on ``time.monotonic``; the end of the wait for another worker.

    Raises:
        problems.Unavailable: other workers still decode large images.
    """
    # flock has no timeout.
    with (Path(tempfile.gettempdir()) / _FILE_NAME).open("ab") as file:
        while not _locked(file.fileno()):
            if time.monotonic() > until:
                raise problems.Unavailable("the service is busy with other large images; try again in a moment")
            time.sleep(_POLL_PAUSE_S)
        try:
            yield
        finally:
            _return_memory()


@contextlib.contextmanager
def memory_limit(extra_bytes: int) -> Iterator[None]:
    """Have allocations fail beyond ``extra_bytes`` more than now, on Linux.

    A file may declare a small picture and contain a large one, which the libraries allocate while they decode.
    """
    limit = _data_bytes() + extra_bytes
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == extra_bytes or (soft != resource.RLIM_INFINITY and soft <= limit):
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _data_bytes() -> int:
    """What RLIMIT_DATA counts; 0 if the system does not say."""
    try:
        return int(_SIZES.read_text().split()[_DATA_FIELD]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _return_memory() -> None:
    """Return free memory to the system, of which the C library would keep some 60 MB in each worker."""
    # Not every C library has malloc_trim.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
