"""An example has the same answer, bit for bit, alone and beside any number of other requests, in every form of body."""

from __future__ import annotations

import base64
import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import pytest
import requests

from models.catalog import CATALOG
from models.datasets import DATASETS
from tests.support import image_files, npy_files

EXAMPLES = 64
CALLERS = 128
ROUNDS = 4
NPY, OCTETS, JSON = "application/x-npy", "application/octet-stream", "application/json"


def _values(body: bytes) -> list[list[float]]:
    answers = orjson.loads(body)
    if "predictions" in answers:
        answers = answers["predictions"]
    elif "outputs" in answers:
        (tensor,) = [each for each in answers["outputs"] if each["name"] == "probabilities"]
        return [tensor["data"]]
    return [list(each["probabilities"].values()) for each in (answers if isinstance(answers, list) else [answers])]


def _tensor(example: np.ndarray) -> dict[str, Any]:
    datatype = "UINT8" if example.dtype == np.uint8 else "FP32"
    return {"name": "x", "datatype": datatype, "shape": [1, *example.shape], "data": example.ravel().tolist()}


# The path before the model's name and after it, content type, body of one example.
FORMS: dict[str, tuple[str, str, str, Callable[[np.ndarray], bytes]]] = {
    "raw": ("/predictions/", "", OCTETS, lambda example: example.tobytes()),
    "npy": ("/predictions/", "", NPY, npy_files.save),
    "JSON": ("/predictions/", "", JSON, lambda example: orjson.dumps(example.tolist())),
    "instances": ("/v1/models/", ":predict", JSON, lambda example: orjson.dumps({"instances": [example.tolist()]})),
    "OIP": ("/v2/models/", "/infer", JSON, lambda example: orjson.dumps({"inputs": [_tensor(example)]})),
}
IMAGE_FORMS = FORMS | {
    "PNG": ("/predictions/", "", "image/png", image_files.save),
    "base64": (
        "/predictions/",
        "",
        JSON,
        lambda example: orjson.dumps({"instances": [{"b64": base64.b64encode(image_files.save(example)).decode()}]}),
    ),
}


@pytest.mark.parametrize("model", CATALOG)
def test_an_answer_does_not_depend_on_its_neighbors(service, model):
    entry = CATALOG[model]
    examples = DATASETS[entry.dataset]().test_inputs[:EXAMPLES].numpy()
    forms = IMAGE_FORMS if entry.input.kind == "image" else FORMS
    url = service.gateway

    def ask(call: tuple[int, str]) -> tuple[int, str, bytes]:
        row, form = call
        before, after, content_type, body = forms[form]
        answer = requests.post(
            f"{url}{before}{model}{after}",
            body(examples[row]),
            headers={"Content-Type": content_type},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        return row, form, np.array(_values(answer.content), np.float32).tobytes()

    alone = [ask((row, "raw"))[2] for row in range(EXAMPLES)]

    together = requests.post(
        f"{url}/predictions/{model}", npy_files.save(examples), headers={"Content-Type": NPY}, timeout=60
    )
    assert np.array(_values(together.content), np.float32).tobytes() == b"".join(alone)

    calls = list(itertools.product(range(EXAMPLES), forms)) * ROUNDS
    random.Random(0).shuffle(calls)
    with ThreadPoolExecutor(CALLERS) as pool:
        different = [(row, form) for row, form, answer in pool.map(ask, calls) if answer != alone[row]]
    assert not different
