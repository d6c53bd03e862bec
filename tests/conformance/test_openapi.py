"""The description of the API against the service behind its gateway.

What it allows is sent, and much that it does not; nothing may come back that it does not describe. The bodies that only
a program can write come from here.
"""

from __future__ import annotations

import io
import re
import zlib

import hypothesis
import numpy as np
import schemathesis
from hypothesis import strategies as st
from schemathesis import checks

from tests.support.reference import PIXELS, ROOT, TIMEOUT, png

# Requests for each operation, beside the examples of the description and its corner cases.
COUNT = 60
CHECKS = [
    *(checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance),
    *(checks.response_headers_conformance, checks.response_schema_conformance),
    *(checks.unsupported_method, checks.allow_header_conformance),
]

# Names that are valid but not there would be all that chance finds.
MODELS = ["fashion_mlp", "fashion_convnet", "blobs_mlp", "sigmoid_net"]
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _of(*right: bytes) -> st.SearchStrategy[bytes]:
    """Right bodies, right ones cut short, and noise."""
    whole = st.sampled_from(right)
    return whole | st.builds(lambda body, share: body[: int(len(body) * share)], whole, st.floats(0, 1)) | st.binary()


PNG = png(PIXELS[0])
VECTORS = np.arange(12, dtype="<f4").reshape(3, 4)
for kind in ("png", "jpeg", "webp", "gif", "bmp"):
    schemathesis.openapi.media_type(f"image/{kind}", _of(PNG))
schemathesis.openapi.media_type("application/octet-stream", _of(PIXELS.tobytes(), VECTORS.tobytes(), PNG))
schemathesis.openapi.media_type("application/x-npy", _of(npy(PIXELS), npy(VECTORS)))

schema = schemathesis.openapi.from_path(ROOT / "web" / "openapi.yaml")


@schema.hook("map_path_parameters")
def name_what_is_there(_context, parameters):
    """Make most names of models and versions those of real ones; always the same of the same."""
    found = dict(parameters or {})
    for name, real in (("model", MODELS), ("version", ["1.0"])):
        given = found.get(name)
        if isinstance(given, str) and NAME.fullmatch(given):
            lot = zlib.crc32(given.encode()) % 5
            found[name] = real[lot % len(real)] if lot < 4 else given
    return found


@schema.parametrize()
@hypothesis.settings(
    max_examples=COUNT,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_answers_are_as_described(case, service):
    case.call_and_validate(base_url=service.http, checks=CHECKS, timeout=TIMEOUT)
