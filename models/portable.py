"""Export a trained version in forms that other servers run: ONNX, torch.export's program, a Triton model repository.

    examples as callers send them ──► padding, scaling ──► network ──► temperature, softmax ──► probabilities

The preparation and the activation, which the handler computes here, are part of the exported network. The conversion of
photographs, the weights for them and the out-of-distribution score are not: they belong to the handler
(docs/leaving.md).
"""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from handlers.inputs.open_inference import native_datatype
from handlers.signature import Signature
from models import artifacts
from models.building import load_network
from models.catalog import Entry
from models.errors import ExportError
from models.training import prepare, probabilities

Target = Literal["onnx", "pt2", "triton"]

ONNX_FILE = "model.onnx"
PROGRAM_FILE = "model.pt2"
# A folder in the artifact, to be passed as --model-repository.
REPOSITORY = "triton"
OUTPUT_NAME = "probabilities"
_TRITON_MODEL = Path(__file__).parent / "triton_model.py"
# Examples that Triton collects into one call.
_TRITON_BATCH = 128


class Whole(nn.Module):
    """A network with its preparation and activation.

    Args:
        network: takes prepared inputs and returns scores, or probabilities if its last layer is a sigmoid.
        signature: the version's contract.
    """

    def __init__(self, network: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.network, self._input, self._output = network, signature.input, signature.output

    def forward(self, examples: Tensor) -> Tensor:
        """Probabilities float32 ``[N, labels]`` of examples ``[N, *shape]``, uint8 images or float32 vectors."""
        scores = self.network(prepare(examples, self._input))
        return probabilities(scores, self._output.activation, self._output.temperature)


def export(entry: Entry, version: str, target: Target) -> Path:
    """Write a trained version in another form, into the folder of its artifact; return the file or folder.

    Raises:
        models.errors.ArtifactError: the version is not trained, or is int8 and has no weights of its own.
        ExportError: torch cannot export the network.
    """
    signature = artifacts.signature(entry.name, version)
    whole = Whole(load_network(entry, version), signature).eval()
    folder = artifacts.folder(entry.name, version)
    program = _program(whole, signature)
    if target == "triton":
        return _write_repository(program, signature, folder / REPOSITORY)
    if target == "onnx":
        return _write_onnx(program, signature, folder / ONNX_FILE)
    torch.export.save(program, folder / PROGRAM_FILE)
    return folder / PROGRAM_FILE


def _program(whole: Whole, signature: Signature) -> torch.export.ExportedProgram:
    dtype = torch.uint8 if signature.input.kind == "image" else torch.float32
    # Two examples: torch.export takes an axis of length 1 as fixed.
    examples = torch.zeros(2, *signature.input.shape, dtype=dtype)
    try:
        return torch.export.export(whole, (examples,), dynamic_shapes=({0: torch.export.Dim("N")},))
    except Exception as error:
        raise ExportError(f"torch.export cannot export {signature.model} {signature.version}: {error}") from error


def _write_onnx(program: torch.export.ExportedProgram, signature: Signature, path: Path) -> Path:
    # It warns about torchvision, which the networks do not use, and about an import of its own.
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            converted = torch.onnx.export(
                program, input_names=[signature.input.name], output_names=[OUTPUT_NAME], verbose=False
            )
    except ModuleNotFoundError as error:
        raise ExportError(f"writing ONNX needs the package {error.name}; run: make export TARGET=onnx") from error
    finally:
        registration.setLevel(level)
    assert converted is not None
    converted.save(path)
    return path


def _write_repository(program: torch.export.ExportedProgram, signature: Signature, folder: Path) -> Path:
    """Write a repository with one model, of one version, which Triton's Python backend computes with ONNX Runtime."""
    shutil.rmtree(folder, ignore_errors=True)
    version_folder = folder / signature.model / "1"
    version_folder.mkdir(parents=True)
    _write_onnx(program, signature, version_folder / ONNX_FILE)
    shutil.copy(_TRITON_MODEL, version_folder / "model.py")
    (folder / signature.model / "labels.txt").write_text("".join(f"{label}\n" for label in signature.output.labels))
    (folder / signature.model / "config.pbtxt").write_text(_triton_config(signature))
    return folder


def _triton_config(signature: Signature) -> str:
    datatype, shape = native_datatype(signature), ", ".join(map(str, signature.input.shape))
    return (
        f'name: "{signature.model}"\n'
        'backend: "python"\n'
        f"max_batch_size: {_TRITON_BATCH}\n"
        "dynamic_batching {}\n"
        f'input [{{ name: "{signature.input.name}", data_type: TYPE_{datatype}, dims: [ {shape} ] }}]\n'
        f'output [{{ name: "{OUTPUT_NAME}", data_type: TYPE_FP32, dims: [ {len(signature.output.labels)} ], '
        'label_filename: "labels.txt" }]\n'
        "instance_group [{ kind: KIND_CPU }]\n"
    )
