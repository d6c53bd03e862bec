"""The golden check: a served version must give the probabilities or numbers that its network gave after training.

The archive holds the examples (``models/golden.py`` writes them).
"""

from __future__ import annotations

import io

import httpx
import numpy as np

from serving import loopback
from serving.errors import StartError
from serving.settings import Settings
from serving.store.archives import Archive, Golden
from serving.torchserve import tokens
from serving.torchserve.management import UNBATCHED

# Largest accepted difference of a probability, and of numbers as a share of the largest one. The last digits depend on
# the CPU and the batch.
_TOLERANCE = 1e-4
# The first answer of a worker takes seconds on a busy machine.
_TIMEOUT_S = 30.0


def run(settings: Settings, archive: Archive, count: int | None = None) -> None:
    """Check a version that TorchServe serves, in both registrations. An archive without golden examples passes.

    Args:
        settings: of the service.
        archive: the model version.
        count: maximum number of golden examples; ``None`` for all.

    Raises:
        StartError: no answer, a status other than 200, or other probabilities.
    """
    for name in (archive.model, *[UNBATCHED + archive.model] * archive.unbatched):
        if archive.golden is not None:
            _check(settings, archive, name, archive.golden, count)


def _check(settings: Settings, archive: Archive, name: str, golden: Golden, count: int | None) -> None:
    failed = f"golden check of {archive.model} {archive.version} failed"
    body = io.BytesIO()
    np.save(body, golden.inputs[:count])
    npy = "application/x-npy"
    headers = {"Content-Type": npy, "Accept": npy, **tokens.headers(settings, "inference")()}
    url = f"{settings.inference.url}/predictions/{name}/{archive.version}"
    with loopback.client(_TIMEOUT_S) as client:
        try:
            answer = client.post(url, content=body.getvalue(), headers=headers)
        except httpx.HTTPError as error:
            raise StartError(f"{failed}: no answer: {error}") from error
    if answer.status_code != 200:
        raise StartError(f"{failed}: HTTP status {answer.status_code}, expected 200: {answer.text[:500]}")
    expected = golden.probabilities[:count]
    try:
        probabilities = np.load(io.BytesIO(answer.content), allow_pickle=False)
    except ValueError:
        kind = answer.headers.get("Content-Type", "none")
        raise StartError(
            f"{failed}: the answer is not a .npy file (Content-Type: {kind}); its handler must answer "
            f"Accept: {npy} with the probabilities as a .npy file"
        ) from None
    tolerance = _TOLERANCE * (np.abs(expected).max() if archive.signature.output.activation == "none" else 1)
    if probabilities.shape != expected.shape or not np.allclose(probabilities, expected, rtol=0, atol=tolerance):
        raise StartError(
            f"{failed}: the probabilities differ from those of the training; {archive.path} does not hold the trained "
            "network, run: make archive"
        )
