"""A model of Triton's Python backend that computes ``model.onnx`` beside it with ONNX Runtime.

``models/portable.py`` copies this file into a model repository as ``1/model.py``. It needs numpy and onnxruntime in the
Python of the backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """The class that the backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network."""
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (self._input,), (self._output,) = self._session.get_inputs(), self._session.get_outputs()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests with one call of the network."""
        # DLPack, because the backend's own conversions give wrong values with numpy 2.
        inputs = [triton.get_input_tensor_by_name(request, self._input.name) for request in requests]
        examples = [np.from_dlpack(tensor) for tensor in inputs]
        (probabilities,) = self._session.run(None, {self._input.name: np.concatenate(examples)})
        parts = np.split(probabilities, np.cumsum([len(each) for each in examples])[:-1])
        return [
            triton.InferenceResponse([triton.Tensor.from_dlpack(self._output.name, np.ascontiguousarray(part))])
            for part in parts
        ]
