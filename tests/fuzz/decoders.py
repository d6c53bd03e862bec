"""Fuzzes the decoder with broken requests of every format; each must decode or raise a Problem.

    python -m tests.fuzz.decoders --count 50000

takes a few minutes. It exits with 1 at the first request that raises anything else, or takes more than these, which are
the promises of ``handlers.limits``: 100 ms of CPU time per image, 1 s per large image, and the memory of one image, or
of a large one, beyond its body (measured on Linux only). It writes that request to a file. A request that ends the
process is in a file too. The same seed gives the same requests.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

from handlers import limits, problems
from handlers.inputs import decoding, image_headers
from handlers.inputs.multipart import Part
from tests.fuzz import mutations
from tests.fuzz.mutations import Request
from tests.support.measured_memory import Memory

# The promises of handlers.limits, in this order for other images and for large ones.
SECONDS_PER_IMAGE = (0.1, 1.0)
EXTRA_BYTES = (limits.IMAGE_MEMORY_BYTES, limits.LARGE_MEMORY_BYTES)
# One request in this many is a large one, because a large request takes as long as a hundred small ones.
LARGE_INTERVAL = 100


class FoundError(Exception):
    """A request broke a promise: it raised another exception, took too long, or took too much memory."""


def outcome(request: Request) -> tuple[str, int]:
    """Decode a request; return the name of its problem, or ``decoded``, and the number of examples."""
    return _outcome(Part(bytearray(request.body), request.content_type), request)


def _outcome(part: Part, request: Request) -> tuple[str, int]:
    try:
        decoded = decoding.decode([part], request.signature, json_length=request.json_length)
    except problems.Internal:
        raise
    except problems.Problem as problem:
        return type(problem).__name__, request.examples
    return "decoded", max(len(decoded.values), request.examples)


def check(request: Request, memory: Memory) -> tuple[str, int]:
    """Decode a request within its limits; return the name of the outcome, and the bytes of memory it took.

    Raises:
        FoundError: an exception other than a problem, too much time, or too much memory.
    """
    part = Part(bytearray(request.body), request.content_type)
    is_large = _is_large(request.body)
    seconds, extra_bytes = SECONDS_PER_IMAGE[is_large], EXTRA_BYTES[is_large]
    memory.start()
    began = time.process_time()
    try:
        name, count = _outcome(part, request)
    except Exception as error:
        raise FoundError(f"{type(error).__name__}: {error}") from error
    took, grown = time.process_time() - began, memory.grown()
    if took > seconds * count:
        # Measure again, because the system may have interrupted the first run.
        began = time.process_time()
        _outcome(part, request)
        took = min(took, time.process_time() - began)
        if took > seconds * count:
            raise FoundError(f"{took * 1000:.0f} ms for {count} examples")
    if grown > extra_bytes:
        raise FoundError(f"{grown / 2**20:.0f} MiB of memory")
    return name, grown


def _is_large(body: bytes) -> bool:
    try:
        return image_headers.inspect(body).is_large
    except problems.Problem:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50_000, help="number of broken requests (default: 50000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--only", default="", help="start of the names of the requests to break, such as HEIC")
    arguments = parser.parse_args()
    corpus = [request for request in mutations.small() if request.name.startswith(arguments.only)]
    memory = Memory()
    heavy = [
        dataclasses.replace(request, examples=outcome(request)[1])
        for request in mutations.large()
        if request.name.startswith(arguments.only)
    ] or corpus
    path = Path(tempfile.gettempdir()) / f"fuzz-{arguments.only or 'all'}-{arguments.seed}.bin"
    for request in corpus:
        outcome(request)
    names: collections.Counter[str] = collections.Counter()
    light = mutations.mutated(arguments.seed, arguments.count, corpus)
    rare = mutations.mutated(arguments.seed, arguments.count // LARGE_INTERVAL + 1, heavy)
    largest = 0
    for number, request in enumerate(light, 1):
        chosen = next(rare) if number % LARGE_INTERVAL == 0 else request
        # Before it is decoded, because a library may end the process.
        path.write_bytes(chosen.body)
        try:
            name, grown = check(chosen, memory)
        except FoundError as finding:
            print(f"\n{chosen.name}, {chosen.content_type!r}, JSON length {chosen.json_length}: {finding}\n{path}")
            return 1
        names[name] += 1
        largest = max(largest, grown)
        if number % 500 == 0 or number == arguments.count:
            print(f"\r{number}/{arguments.count} {dict(names.most_common())}", end="", flush=True)
    path.unlink()
    print(f"\nEvery request decoded or raised a problem. The largest took {largest / 2**20:.0f} MiB.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
