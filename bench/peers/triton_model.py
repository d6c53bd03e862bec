"""The model that Triton's Python backend runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as backend

from bench.peers.predictor import Predictor


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 (its name is part of the interface)
        self._predictor = Predictor()

    def execute(self, requests: list[Any]) -> list[Any]:
        images = []
        for request in requests:
            image = backend.get_input_tensor_by_name(request, "image").as_numpy()
            images.append(image if image.dtype == np.uint8 else self._predictor.decode(image[0, 0])[None])
        probabilities = self._predictor.probabilities(np.concatenate(images))
        pieces = np.split(probabilities, np.cumsum([len(image) for image in images])[:-1])
        return [backend.InferenceResponse([backend.Tensor("probabilities", piece)]) for piece in pieces]
