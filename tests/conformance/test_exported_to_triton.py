"""A real Triton server answers from exported model repositories with the golden answers of the archives."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton

from serving.polling import wait_until
from serving.settings import HOST, ROOT
from tests.support import free_ports

# `make test-conformance` installs requirements/triton.txt there.
FOLDER = Path(sys.prefix) / "triton"
SERVER = FOLDER / "pytriton" / "tritonserver"
START_TIMEOUT_S = 60
ARTIFACTS = Path(os.environ.get("FASHION_ARTIFACTS_DIR", ROOT / "artifacts"))
MODELS = ("fashion_mlp", "fashion_convnet", "blobs_mlp", "sigmoid_net")
TOLERANCE = 1e-5

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="the wheel is for Linux on x86_64 only"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[triton.InferenceServerClient]:
    """A client of a Triton server with the exported models of the catalog."""
    if not SERVER.exists():
        pytest.fail(f"{SERVER} is missing; run: make test-conformance")
    folder = tmp_path_factory.mktemp("triton")
    python = ROOT / ".venv" / "bin"
    command = [str(python / "python"), "-m", "models", "export", *MODELS, "--target", "triton"]
    exported = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert exported.returncode == 0, exported.stderr
    for model in MODELS:
        shutil.copytree(ARTIFACTS / model / "1.0" / "triton" / model, folder / "repository" / model)
    # The wheel has a stub for each version of Python; the backend takes the one beside it.
    backend = folder / "backends" / "python"
    shutil.copytree(SERVER / "backends" / "python", backend)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = shutil.copy(SERVER / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    Path(stub).chmod(0o755)
    program = Path(shutil.copy(SERVER / "bin" / "tritonserver", folder))
    program.chmod(0o755)
    http, grpc = free_ports.find(2)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(FOLDER / "nvidia_pytriton.libs"),
        # The backend's Python is the first one in the path.
        "PATH": f"{python}:{os.environ['PATH']}",
    }
    arguments = [
        *("--model-repository", folder / "repository", "--backend-directory", folder / "backends"),
        *("--http-address", HOST, "--http-port", http, "--grpc-address", HOST, "--grpc-port", grpc),
        *("--allow-metrics", "false"),
    ]
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [program, *map(str, arguments)], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    client = triton.InferenceServerClient(f"{HOST}:{http}")

    def is_ready() -> bool:
        if process.poll() is not None:
            pytest.fail(f"Triton ended:\n{log.read_text()[-3000:]}")
        try:
            return bool(client.is_server_ready())
        except OSError:
            return False

    try:
        assert wait_until(is_ready, START_TIMEOUT_S), log.read_text()[-3000:]
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("model", MODELS)
def test_triton_gives_the_golden_answers(server, model):
    with np.load(ARTIFACTS / model / "1.0" / "golden.npz") as golden:
        inputs, expected = golden["inputs"], golden["probabilities"]
    (described,) = server.get_model_metadata(model)["inputs"]
    # Triton takes up to 128 examples at once.
    for start in range(0, len(inputs), 100):
        examples = inputs[start : start + 100]
        tensor = triton.InferInput(described["name"], list(examples.shape), described["datatype"])
        tensor.set_data_from_numpy(examples)
        answers = server.infer(model, [tensor]).as_numpy("probabilities")
        np.testing.assert_allclose(answers, expected[start : start + 100], atol=TOLERANCE, rtol=0)


def test_triton_knows_the_labels(server):
    with np.load(ARTIFACTS / "fashion_mlp" / "1.0" / "golden.npz") as golden:
        examples, expected = golden["inputs"][:1], golden["probabilities"][:1]
    tensor = triton.InferInput("image", [1, 28, 28], "UINT8")
    tensor.set_data_from_numpy(examples)
    output = triton.InferRequestedOutput("probabilities", class_count=1)
    ((text,),) = server.infer("fashion_mlp", [tensor], outputs=[output]).as_numpy("probabilities")
    best = int(expected.argmax())
    labels = (ARTIFACTS / "fashion_mlp" / "1.0" / "triton" / "fashion_mlp" / "labels.txt").read_text().split("\n")
    assert text.decode().split(":")[1:] == [str(best), labels[best]]
