"""The archive's TorchScript, optimized for predictions."""

from __future__ import annotations

from typing import Any

import torch

# Threads that compute in one worker. More would only wait for the other workers' threads on the same cores.
THREADS = 1


def optimized(network: torch.jit.ScriptModule, device: torch.device) -> torch.jit.ScriptModule:
    """A copy of a network that computes the same scores faster, equal within rounding.

    On a CPU with oneDNN, an example's scores are the same, bit for bit, whatever the other examples of its batch.
    oneDNN computes a row in the same order in batches of any size; MKL does not in those of fewer than four rows.

    Args:
        network: in evaluation mode on ``device``; it keeps its gradients, with which explanations are computed.
        device: the device that computes.
    """
    copy: torch.jit.ScriptModule = torch.jit.freeze(network)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        _compute_in_float64(copy.graph)
        _pack_linear_layers(copy.graph)
        # Without a convolution, its conversions of the layout only cost time.
        if any(node.kind() == "aten::conv2d" for node in copy.graph.nodes()):
            copy = torch.jit.optimize_for_inference(copy)
    return copy


def padded_count(count: int) -> int:
    """The number of examples, at least ``count``, in the call that computes ``count`` examples.

    oneDNN compiles and keeps a program for each layer and batch size, some 2 MB for each size of these networks. So
    each doubling has only eight sizes: all up to 16, multiples of 2 up to 32, of 4 up to 64, and so on. On average 3 %
    of the computed examples are padding; with fewer sizes that would be more.
    """
    step = 1 << max(0, (count - 1).bit_length() - 4)
    return -(-count // step) * step


def _compute_in_float64(graph: Any) -> None:
    """Compute sigmoid and tanh in float64, rounded to float32; ``graph`` is changed in place.

    torch computes as many numbers as fit with vector instructions and the rest without, with other last bits, so that
    an example's result would depend on its place in the batch. In float64, rounding removes the difference. int8
    networks have no such functions of floats.
    """
    if any(node.kind() == "aten::quantize_per_tensor" for node in graph.nodes()):
        return
    for function in ("sigmoid", "tanh"):
        call = f"aten::{function}"
        pattern = f"graph(%x):\n %y = {call}(%x)\n return (%y)"
        replacement = f"""graph(%x):
            %float64 : int = prim::Constant[value=7]()
            %float32 : int = prim::Constant[value=6]()
            %no : bool = prim::Constant[value=0]()
            %none : NoneType = prim::Constant()
            %x64 : Tensor = aten::to(%x, %float64, %no, %no, %none)
            %y64 : Tensor = {call}(%x64)
            %y : Tensor = aten::to(%y64, %float32, %no, %no, %none)
            return (%y)"""
        torch._C._jit_pass_custom_pattern_based_rewrite_graph(pattern, replacement, graph)


def _pack_linear_layers(graph: Any) -> None:
    """Replace linear layers by oneDNN's, on weights packed in its own layout, fused with a ReLU that follows.

    ``torch.jit.optimize_for_inference`` leaves them to MKL. For batches, oneDNN with packed weights takes
    half the time of MKL with the weights of a frozen graph.

    Args:
        graph: of a frozen network, changed in place; a ``torch._C.Graph``, whose type hints are incomplete.
    """
    scalars = torch._C.ListType(torch._C.OptionalType(torch._C.NumberType.get()))
    for linear in [node for node in graph.nodes() if node.kind() == "aten::linear"]:
        inputs, weight, bias = linear.inputs()
        if not _can_be_packed(weight, bias):
            continue
        users = [use.user for use in linear.output().uses()]
        relu = users[0] if len(users) == 1 and users[0].kind() == "aten::relu" else None

        packed = graph.create("prim::ConstantMKLDNNTensor", 1)
        packed.t_("value", torch.ops.mkldnn._reorder_linear_weight(weight.toIValue().detach()))
        no_scalars = graph.create("prim::ListConstruct", [], 1)
        no_scalars.output().setType(scalars)
        activation, no_algorithm = graph.insertConstant("relu" if relu else "none"), graph.insertConstant("")
        arguments = [inputs, packed.output(), bias, activation, no_scalars.output(), no_algorithm]
        fused = graph.create("mkldnn::_linear_pointwise", arguments, 1)
        for node in (packed, no_scalars, fused):
            node.insertBefore(linear)
        for value in (activation, no_algorithm):
            value.node().moveBefore(fused)
        (relu or linear).output().replaceAllUsesWith(fused.output())

        if relu:
            relu.destroy()
        linear.destroy()


def _can_be_packed(weight: Any, bias: Any) -> bool:
    """Whether a linear layer's weight, a ``torch._C.Value``, is constant float32, and its bias constant or absent."""
    value = weight.toIValue()
    is_constant = isinstance(value, torch.Tensor) and value.dtype == torch.float32
    return is_constant and (bias.toIValue() is not None or bias.node().mustBeNone())
