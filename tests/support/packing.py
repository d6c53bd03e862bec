"""Small archives for tests, which TorchServe's frontend and the real handlers can load."""

from __future__ import annotations

import functools
import io
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handlers.signature import FILE_NAME, Input, Output, Signature
from models import index_writer
from models.archiving import HANDLERS, file_name

FEATURES = 3
LABELS = ("left", "right")

CONFIG = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 4\ncontinuousBatching: true\nmaxBatchDelay: 1\nresponseTimeout: 30\n"


def network() -> torch.nn.Linear:
    """A linear layer with three inputs, two outputs, and fixed weights."""
    layer = torch.nn.Linear(FEATURES, len(LABELS))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0, 0.5], [-0.5, 1.0, 0.25]]))
        layer.bias.zero_()
    return layer


def signature(model: str, version: str, accuracy: float = 0.9) -> Signature:
    """The signature of ``network`` with a given test accuracy."""
    return Signature(
        model=model,
        version=version,
        description="A linear layer for tests.",
        input=Input(kind="vector", name="features", shape=(FEATURES,), network_shape=(FEATURES,)),
        output=Output(activation="softmax", labels=LABELS),
        scored={"test_accuracy": accuracy},
    )


def golden(count: int = 4) -> bytes:
    """``golden.npz``: inputs float32 [count, 3] and their probabilities float32 [count, 2]."""
    inputs = np.linspace(-1, 1, count * FEATURES, dtype=np.float32).reshape(count, FEATURES)
    with torch.inference_mode():
        probabilities = network()(torch.from_numpy(inputs)).softmax(1).numpy()
    return npz(inputs=inputs, probabilities=probabilities)


def npz(**arrays: np.ndarray) -> bytes:
    """Arrays as the bytes of a ``.npz`` file."""
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=True, **arrays)
    return packed.getvalue()


def manifest(model: str, version: str) -> dict[str, Any]:
    """The content of ``MAR-INF/MANIFEST.json``, as torch-model-archiver writes it."""
    return {
        "archiverVersion": "0.12.0",
        "runtime": "python",
        "model": {
            "modelName": model,
            "modelVersion": version,
            "handler": "vector_classifier.py",
            "serializedFile": "model.pt",
            "configFile": "model-config.yaml",
        },
    }


@functools.cache
def script() -> bytes:
    """``network`` as TorchScript."""
    packed = io.BytesIO()
    with warnings.catch_warnings():
        # torch deprecates TorchScript, which archives hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(network()), packed)
    return packed.getvalue()


def pack(
    store: Path,
    model: str = "tiny",
    version: str = "1.0",
    changes: Mapping[str, bytes | str | None] | None = None,
    accuracy: float = 0.9,
    floor: float = 0.5,
) -> Path:
    """Write an archive and list it in the store's index.

    Args:
        store: the folder, created if needed.
        model: the model's name.
        version: its version.
        changes: files to replace or add; ``None`` omits a file.
        accuracy: the test accuracy in the signature.
        floor: the accuracy floor in the index.
    """
    files: dict[str, bytes | str | None] = {
        "MAR-INF/MANIFEST.json": json.dumps(manifest(model, version)).encode(),
        "vector_classifier.py": (HANDLERS / "vector_classifier.py").read_bytes(),
        **{f"handlers/{path.relative_to(HANDLERS)}": path.read_bytes() for path in HANDLERS.rglob("*.py")},
        "model.pt": script(),
        FILE_NAME: signature(model, version, accuracy).to_json().encode(),
        "model-config.yaml": CONFIG.encode(),
        "golden.npz": golden(),
        **(changes or {}),
    }
    store.mkdir(parents=True, exist_ok=True)
    path = store / file_name(model, version)
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            if content is not None:
                packed.writestr(name, content)
    index_writer.record(store, path, model, version, floor)
    return path
