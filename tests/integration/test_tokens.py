"""TorchServe's own tokens, end to end: made at each start of the frontend and used by every part."""

from __future__ import annotations

import contextlib
from typing import Any

import grpc
import pytest
import requests

from serving.polling import wait_until
from serving.sidecars.grpc.proto import open_inference_pb2 as oip
from serving.supervisor import parts
from serving.torchserve import tokens
from tests.support import packing
from tests.support.place import make_place

VECTOR = [1, 2, 3]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A service with tokens, with ``tiny`` 1.0 live and 1.1 in its model store."""
    folder = tmp_path_factory.mktemp("tokens")
    place = make_place(folder, folder / "model_store", FASHION_TOKENS="1")
    packing.pack(place.settings.model_store)
    place.start()
    packing.pack(place.settings.model_store, version="1.1")
    try:
        yield place
        assert place.run("stop").returncode == 0
        assert not place.settings.key_file.exists()
    finally:
        place.end()


@pytest.fixture
def keys(guarded):
    """Returns the current key of one API."""
    return lambda kind: tokens.key(guarded.settings.key_file, kind)


def _status(url: str, token: str | None = None, **request: Any) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    method = "POST" if request else "GET"
    return requests.request(method, url, headers=headers, timeout=10, **request).status_code


def _predicts(guarded) -> bool:
    answer = requests.post(f"{guarded.gateway}/predictions/tiny", json=VECTOR, timeout=10)
    return answer.status_code == 200


def test_nobody_without_the_right_token_is_answered(guarded, keys):
    right = {
        f"{guarded.inference}/predictions/tiny": keys("inference"),
        f"{guarded.management}/models": keys("management"),
    }
    for url, token in right.items():
        request: dict[str, Any] = {"json": VECTOR} if "predictions" in url else {}
        assert _status(url, token, **request) == 200
        for wrong in (None, "x", token[:-1], *(set(right.values()) - {token})):
            assert _status(url, wrong, **request) == 400, wrong
    assert _status(f"{guarded.management}/models", None, params={"url": "tiny-1.1.mar"}) == 400
    assert _status(f"{guarded.management}/token?type=management", keys("management")) == 400


def test_only_the_owner_may_read_the_keys(guarded):
    secret = [guarded.settings.key_file, guarded.settings.run / "gateway" / "live" / "live.conf"]
    assert [path.stat().st_mode & 0o777 for path in secret] == [0o600, 0o600]


def test_callers_of_the_gateway_need_no_token(guarded):
    assert _predicts(guarded)
    # The gateway does not pass a client's own key on.
    assert _status(f"{guarded.gateway}/predictions/tiny", "mine", json=VECTOR) == 200
    chunked = requests.post(
        f"{guarded.gateway}/predictions/tiny",
        data=iter([b"[1, 2,", b" 3]"]),
        headers={"Content-Type": "application/json"},
        timeout=10,
    )
    assert chunked.status_code == 200
    for path in ("/readyz", "/v1/models", "/v2/models/tiny", "/v2/models/tiny/ready"):
        assert _status(guarded.gateway + path) == 200, path


def test_callers_over_grpc_need_no_token(guarded):
    tensor = oip.ModelInferRequest.InferInputTensor(name="features", datatype="FP32", shape=[1, 3])
    tensor.contents.fp32_contents.extend(VECTOR)
    with grpc.insecure_channel(guarded.grpc) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            oip.ModelInferRequest.SerializeToString,
            oip.ModelInferResponse.FromString,
        )
        answer = call(oip.ModelInferRequest(model_name="tiny", inputs=[tensor]), timeout=10)
    assert (answer.model_name, answer.model_version) == ("tiny", "1.0")


def test_rollouts_use_the_tokens(guarded):
    for command in (("deploy", "tiny", "1.1"), ("rollback", "tiny")):
        result = guarded.run(*command, "--grace", "0.5")
        assert result.returncode == 0, result.stderr


def test_all_parts_use_the_new_keys_of_a_restarted_frontend(guarded, keys):
    before = keys("inference")
    guarded.process(parts.FRONTEND).kill()

    def recovered() -> bool:
        with contextlib.suppress(Exception):
            return keys("inference") != before and _predicts(guarded) and guarded.run("status").returncode == 0
        return False

    assert wait_until(recovered, 60)
    assert wait_until(lambda: _status(f"{guarded.gateway}/v1/models") == 200, 10)
