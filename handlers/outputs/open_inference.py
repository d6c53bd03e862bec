"""Open Inference Protocol (KServe v2): writes inference responses and the model's metadata.

    probabilities  FP32   [N, labels]
    class          INT64  [N]          softmax models only: the index of the largest probability
    label          BYTES  [N]          softmax models only: that class's name
    values         FP32   [N, labels]  in place of these three, of models that return plain numbers
    ood            FP32   [N]          if requested by name: the out-of-distribution score
    attributions   FP32   [N, *shape]  explanations only: how much each value supports the target
    target         INT64  [N]          explanations only: the index of the explained label

``handlers.inputs.open_inference`` reads the requests, and names the protocol's sources.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from handlers.inputs import open_inference
from handlers.inputs.open_inference import (
    DATATYPES,
    EXPLANATION_OUTPUT_NAMES,
    OOD_OUTPUT_NAME,
    OUTPUT_NAMES,
    Output,
    Request,
    native_datatype,
)
from handlers.signature import Signature

_OUTPUT_DATATYPES = {
    **{"probabilities": "FP32", "class": "INT64", "label": "BYTES", "values": "FP32"},
    **{"attributions": "FP32", "target": "INT64", OOD_OUTPUT_NAME: "FP32"},
}


def output_names(signature: Signature) -> tuple[str, ...]:
    """The names of all outputs of predictions."""
    names: tuple[str, ...] = OUTPUT_NAMES[signature.output.activation]
    return names if signature.ood_threshold is None else (*names, OOD_OUTPUT_NAME)


def encode(
    request: Request, probabilities: NDArray[np.float32], signature: Signature, ood: NDArray[np.float32] | None = None
) -> tuple[bytes, str, int | None]:
    """Write an inference response.

    Args:
        request: as ``handlers.inputs.open_inference.parse`` returned it.
        probabilities: float32 [N, labels], in the order of the inputs.
        signature: the model's contract.
        ood: out-of-distribution scores, float32 [N], if that output is requested.

    Returns:
        The body, its content type, and the value of the ``Inference-Header-Content-Length`` header. The value is
        ``None`` if the body is only JSON.

    Raises:
        problems.Unprocessable: the model has no output of a requested name.
    """
    best = probabilities.argmax(1)
    values = {"probabilities": probabilities, "values": probabilities, "class": best, "label": best}
    values |= {} if ood is None else {OOD_OUTPUT_NAME: ood}
    return _response(request, output_names(signature), values, signature)


def encode_explanations(
    request: Request, targets: Sequence[int], attributions: NDArray[np.float32], signature: Signature
) -> tuple[bytes, str, int | None]:
    """Write the response to a request for explanations: the tensors ``attributions`` and ``target``.

    Args:
        request: as for ``encode``.
        targets: for each example the index of the explained label.
        attributions: float32 [N, *shape].
        signature: the model's contract.

    Returns, Raises:
        As ``encode``.
    """
    values: dict[str, NDArray[Any]] = {"attributions": attributions, "target": np.array(targets, np.int64)}
    return _response(request, EXPLANATION_OUTPUT_NAMES, values, signature)


def _response(
    request: Request, names: tuple[str, ...], values: Mapping[str, Any], signature: Signature
) -> tuple[bytes, str, int | None]:
    """The response with the requested outputs of ``names``, and with the values of each."""
    labels = signature.output.labels
    tensors = [_tensor(output, values[output.name], labels) for output in open_inference.outputs(request, names)]
    # TorchServe's own gRPC service requires these four members: a worker dies if one is missing.
    answer: dict[str, Any] = {
        "model_name": signature.model,
        "model_version": signature.version,
        "id": request.id,
        "outputs": [tensor for tensor, _ in tensors],
    }
    if request.parameters:
        answer["parameters"] = request.parameters
    header = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    binary = [raw for _, raw in tensors]
    if not any(binary):
        return header, "application/json", None
    return b"".join([header, *binary]), "application/octet-stream", len(header)


def metadata(signature: Signature, versions: Sequence[str]) -> dict[str, Any]:
    """The protocol's model metadata object.

    Args:
        signature: the model's contract.
        versions: all versions that are registered under the model's name.
    """

    def tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": [-1, *shape]}

    inputs, outputs = signature.input, signature.output
    count = len(outputs.labels)
    shapes = {"probabilities": [count], "values": [count], "class": [], "label": [], OOD_OUTPUT_NAME: []}
    return {
        "name": signature.model,
        "versions": list(versions),
        "platform": "pytorch_torchscript",
        "inputs": [tensor(inputs.name, native_datatype(signature), *inputs.shape)],
        "outputs": [tensor(name, _OUTPUT_DATATYPES[name], *shapes[name]) for name in output_names(signature)],
    }


def _element(text: str) -> bytes:
    """A text as an element of a binary BYTES tensor."""
    encoded = text.encode()
    return len(encoded).to_bytes(4, "little") + encoded


@functools.lru_cache(maxsize=8)
def _label_elements(labels: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(map(_element, labels))


def _tensor(output: Output, values: NDArray[Any], labels: tuple[str, ...]) -> tuple[dict[str, Any], bytes]:
    """One tensor of the response, and the raw bytes that follow the JSON for it; the values of labels are indices."""
    name, binary, classes = output
    if classes:
        return _classification(output, values, labels)
    tensor: dict[str, Any] = {"name": name, "datatype": _OUTPUT_DATATYPES[name], "shape": values.shape}
    if not binary:
        tensor["data"] = [labels[index] for index in values.tolist()] if name == "label" else values.reshape(-1)
        return tensor, b""
    if name == "label":
        elements = _label_elements(labels)
        raw = b"".join([elements[index] for index in values.tolist()])
    else:
        raw = values.astype(DATATYPES[tensor["datatype"]], copy=False).tobytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    return tensor, raw


def _classification(
    output: Output, probabilities: NDArray[np.float32], labels: tuple[str, ...]
) -> tuple[dict[str, Any], bytes]:
    """As ``_tensor``, with the most probable labels as text; a count beyond the model's labels returns all of them."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, : output.classes]
    values = np.take_along_axis(probabilities, best, axis=1)
    # Six decimals, as Triton writes them.
    texts = [
        f"{value:f}:{index}:{labels[index]}"
        for value, index in zip(values.ravel().tolist(), best.ravel().tolist(), strict=True)
    ]
    tensor: dict[str, Any] = {"name": output.name, "datatype": "BYTES", "shape": best.shape}
    if not output.binary:
        return {**tensor, "data": texts}, b""
    raw = b"".join(map(_element, texts))
    return {**tensor, "parameters": {"binary_data_size": len(raw)}}, raw
