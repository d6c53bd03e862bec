"""Triton's own server and Python backend from the package nvidia-pytriton, with binary tensors."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytriton

from bench.peers.predictor import BATCH, PORT, WAIT_MS, WORKERS

IMAGE = {
    "raw": "data_type: TYPE_UINT8, dims: [28, 28]",
    "png": "data_type: TYPE_STRING, dims: [1]",
}
CONFIG = """
backend: "python"
max_batch_size: {batch}
input [ {{ name: "image", {image} }} ]
output [ {{ name: "probabilities", data_type: TYPE_FP32, dims: [10] }} ]
instance_group [ {{ count: {workers}, kind: KIND_CPU }} ]
dynamic_batching {{ max_queue_delay_microseconds: {wait} }}
"""


def main() -> None:
    package = Path(pytriton.__file__).parent
    server = package / "tritonserver"
    repository = Path(tempfile.mkdtemp(prefix="peer-triton-"))
    (repository / "classifier" / "1").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("triton_model.py"), repository / "classifier" / "1" / "model.py")
    config = CONFIG.format(batch=BATCH, workers=WORKERS, wait=int(WAIT_MS * 1000), image=IMAGE[os.environ["PEER_FORM"]])
    (repository / "classifier" / "config.pbtxt").write_text(config)
    # The backend expects its helper program in its own folder. The package has one for each version of Python.
    backends = repository.with_name(repository.name + "-backends")
    shutil.copytree(server / "backends", backends)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    libraries = [str(package.parent / "nvidia_pytriton.libs"), f"{sys.base_prefix}/lib"]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "PYTHONHOME": sys.base_prefix,
        "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(package.parent)]),
    }
    program = str(server / "bin" / "tritonserver")
    options = [
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        "--http-address=127.0.0.1",
        f"--http-port={PORT}",
        "--allow-grpc=false",
        "--allow-metrics=false",
        "--log-info=false",
        "--log-warning=false",
        "--http-thread-count=4",
    ]
    os.execve(program, [program, *options], environment)


if __name__ == "__main__":
    main()
