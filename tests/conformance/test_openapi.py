"""The description of the API against the service behind its gateway.

Schemathesis sends requests that the description allows, and many that it forbids. Every answer must be one that the
description contains. This module adds bodies that random data cannot produce, such as PNG files.
"""

from __future__ import annotations

import re
import zlib

import hypothesis
import numpy as np
import schemathesis
from hypothesis import strategies as st
from schemathesis import checks

from serving.settings import ROOT
from tests.support import image_files, npy_files
from tests.support.reference import PIXELS, TIMEOUT

# Random requests per operation, in addition to the description's examples and to corner cases.
REQUESTS_PER_OPERATION = 60
CHECKS = [
    *(checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance),
    *(checks.response_headers_conformance, checks.response_schema_conformance),
    *(checks.unsupported_method, checks.allow_header_conformance),
]

# Random valid names would almost never be the name of a model.
MODELS = ["fashion_mlp", "fashion_convnet", "blobs_mlp", "sigmoid_net"]
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def _bodies(*valid: bytes) -> st.SearchStrategy[bytes]:
    """Valid bodies, truncated ones, and random bytes."""
    whole = st.sampled_from(valid)
    return whole | st.builds(lambda body, share: body[: int(len(body) * share)], whole, st.floats(0, 1)) | st.binary()


PNG = image_files.save(PIXELS[0])
VECTORS = np.arange(12, dtype="<f4").reshape(3, 4)
for kind in ("png", "jpeg", "heic", "avif", "webp", "gif", "tiff", "bmp"):
    schemathesis.openapi.media_type(f"image/{kind}", _bodies(PNG))
schemathesis.openapi.media_type("application/octet-stream", _bodies(PIXELS.tobytes(), VECTORS.tobytes(), PNG))
schemathesis.openapi.media_type("application/x-npy", _bodies(npy_files.save(PIXELS), npy_files.save(VECTORS)))

schema = schemathesis.openapi.from_path(ROOT / "web" / "openapi.yaml")


@schema.hook("map_path_parameters")
def use_existing_names(_context, parameters):
    """Replace four of five random names by those of existing models and versions; equal names by equal ones."""
    values = dict(parameters or {})
    for parameter, existing in (("model", MODELS), ("version", ["1.0"])):
        name = values.get(parameter)
        if isinstance(name, str) and NAME.fullmatch(name):
            bucket = zlib.crc32(name.encode()) % 5
            values[parameter] = existing[bucket % len(existing)] if bucket < 4 else name
    return values


@schema.parametrize()
@hypothesis.settings(
    max_examples=REQUESTS_PER_OPERATION,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_answers_match_the_description(case, service):
    case.call_and_validate(base_url=service.http, checks=CHECKS, timeout=TIMEOUT)
