"""Networks that were trained elsewhere: read from their files, and checked as a worker will call them."""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handlers import torchscript
from handlers.preparation import Preparation
from handlers.signature import Input
from models.errors import NetworkError

# Batch sizes with which a network is checked, because a worker's requests may add up to any.
_BATCH_SIZES = (1, 2, 7, 256)
# Largest difference of a probability, and of numbers as a share of the largest one, as of the golden check
# (serving/torchserve/golden_check.py).
TOLERANCE = 1e-4


def load(path: Path, class_name: str | None = None) -> torch.jit.ScriptModule:
    """Read a network.

    Args:
        path: a TorchScript file, or a state dict.
        class_name: ``module:Class`` of the network of a state dict; it is called without arguments.

    Returns:
        TorchScript on the CPU in evaluation mode.

    Raises:
        NetworkError: the file is missing or of another kind, or class and state dict do not fit.
    """
    if not path.is_file():
        raise NetworkError(f"{path} does not exist; pass a TorchScript file or a state dict with --network")
    if class_name:
        return _from_state_dict(path, class_name)
    try:
        network: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, EOFError) as error:
        raise NetworkError(
            f"{path} is not TorchScript ({_reason(error)}); write it with torch.jit.save, or name the class of a state "
            "dict with --class module:Class"
        ) from error
    return network.eval()


def _from_state_dict(path: Path, class_name: str) -> torch.jit.ScriptModule:
    try:
        network = pkgutil.resolve_name(class_name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise NetworkError(
            f"--class {class_name} cannot be called without arguments ({_reason(error)}); give module:Class of a "
            "network whose module is on PYTHONPATH"
        ) from error
    if not isinstance(network, nn.Module):
        raise NetworkError(f"--class {class_name} must be a torch.nn.Module, got {type(network).__name__}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise NetworkError(f"{path} is not a state dict ({_reason(error)}); write it with torch.save") from error
    if not isinstance(state, Mapping):
        raise NetworkError(f"{path} must hold a state dict, got {type(state).__name__}")
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise NetworkError(f"{path} does not hold the weights of {class_name}: {_reason(error)}") from error
    try:
        scripted: torch.jit.ScriptModule = torch.jit.script(network.eval())
    except Exception as error:
        raise NetworkError(
            f"{class_name} cannot be scripted ({_reason(error)}); save it with torch.jit.trace, and import that file "
            "without --class"
        ) from error
    return scripted


def network_shape(network: nn.Module, inputs: Tensor, kind: str) -> tuple[int, ...]:
    """The shape of one example with which the network can be called.

    Args:
        network: as ``load`` returned it.
        inputs: examples [N, *shape].
        kind: of the input; gray pictures have a channel axis, none, or are flat.

    Raises:
        NetworkError: the network fails with every shape.
    """
    shape = tuple(inputs.shape[1:])
    shapes = [(1, *shape), shape, (math.prod(shape),)] if kind == "image" and len(shape) == 2 else [shape]
    reasons = []
    for candidate in shapes:
        try:
            answer = _call(network, inputs[:2].float().reshape(-1, *candidate))
        except NetworkError as error:
            reasons.append(str(error))
            continue
        if isinstance(answer, Tensor) and answer.dim() and len(answer) == len(inputs[:2]):
            return candidate
        reasons.append("it does not return one tensor with a row for each example")
    taken = " or ".join("x".join(map(str, ("N", *candidate))) for candidate in shapes)
    raise NetworkError(f"the network cannot be called with float32 {taken}: {reasons[0]}")


def scores(network: Any, inputs: Tensor, spec: Input, form: str = "") -> Tensor:
    """The network's output for any number of examples, float32 [N, …], computed in a worker's chunks.

    Args:
        network: as ``load`` returned it, or optimized.
        inputs: examples [N, *shape].
        spec: how they become the network's input.
        form: of the network, for messages.

    Raises:
        NetworkError: the network fails, or returns another shape.
    """
    answers, preparation = [], Preparation(spec)
    for chunk in torch.split(inputs, preparation.chunk):
        try:
            answer = _call(network, preparation(chunk))
        except NetworkError as error:
            raise NetworkError(
                f"the network{form} fails on a batch of {len(chunk)} ({error}); save it with a free batch axis"
            ) from error
        if not answer.dim() or len(answer) != len(chunk):
            raise NetworkError(
                f"the network{form} must return a row of values for each example, got the shape {list(answer.shape)} "
                f"for a batch of {len(chunk)}"
            )
        answers.append(answer.float())
    return torch.cat(answers)


def check(
    network: torch.jit.ScriptModule, inputs: Tensor, spec: Input, expected: Tensor, tolerance: float = TOLERANCE
) -> None:
    """Check that a worker can serve the network: in batches of any size, and optimized.

    Args:
        network: as ``load`` returned it.
        inputs: examples [N, *shape].
        spec: how they become the network's input.
        expected: the network's output for them, as ``scores`` returned it.
        tolerance: largest accepted difference of a value that is small beside it.

    Raises:
        NetworkError: an output that is not finite, or other outputs in a batch of another size.
    """
    if not expected.isfinite().all():
        row = int((~expected.isfinite()).any(1).nonzero()[0])
        raise NetworkError(f"the network's scores must be finite, got {expected[row].tolist()[:5]} for example {row}")
    optimized = torchscript.optimized(network, torch.device("cpu"))
    for form, called in (("", network), (", optimized for serving,", optimized)):
        for size in _BATCH_SIZES:
            # TorchScript specializes a network in its second call.
            answers = [scores(called, inputs[:size], spec, form) for _ in range(2)]
            if not all(_same(answer, expected[:size], tolerance) for answer in answers):
                raise NetworkError(
                    f"the network{form} gives an example other scores in a batch of {size}; they must not depend on "
                    "the other examples, nor on chance"
                )


def _same(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=TOLERANCE, atol=tolerance)


def _call(network: Any, inputs: Tensor) -> Tensor:
    try:
        with torch.inference_mode():
            answer: Tensor = network(inputs)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise NetworkError(_reason(error)) from error
    return answer


def _reason(error: Exception) -> str:
    """The last line of a message, which follows a traceback in TorchScript's."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip().removeprefix("RuntimeError: ")[:200].rstrip(".") if lines else type(error).__name__
