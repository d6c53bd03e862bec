"""The archive's TorchScript, optimized for predictions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Threads that compute in one worker. More would only wait for the other workers' threads on the same cores.
THREADS = 1


class OptimizedNetwork:
    """A network that computes the same scores faster, equal within rounding.

    Attributes:
        single: computes one example, for which oneDNN's packed weights would take up to twice as long.
        several: computes more examples at once.
    """

    def __init__(self, network: torch.jit.ScriptModule, device: torch.device) -> None:
        """Optimize a copy of ``network``, which is in evaluation mode on ``device``.

        The original keeps its gradients, with which explanations are computed.
        """
        self.single: torch.jit.ScriptModule = torch.jit.freeze(network)
        self.several = self.single
        if device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            self.several = torch.jit.freeze(network)
            if any(node.kind() == "aten::conv2d" for node in self.several.graph.nodes()):
                self.several = torch.jit.optimize_for_inference(self.several)
            else:
                _pack_linear_layers(self.several.graph)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Scores float32 ``[N, labels]`` of prepared inputs float32 ``[N, *network_shape]``."""
        scores: Tensor = (self.single if len(inputs) == 1 else self.several)(inputs)
        return scores


def _pack_linear_layers(graph: Any) -> None:
    """Replace linear layers by oneDNN's, on weights packed in its own layout, fused with a ReLU that follows.

    ``torch.jit.optimize_for_inference`` does that only for networks with convolutions. oneDNN with packed weights takes
    half the time of MKL with the weights of a frozen graph.

    Args:
        graph: of a frozen network, changed in place; a ``torch._C.Graph``, whose type hints are incomplete.
    """
    scalars = torch._C.ListType(torch._C.OptionalType(torch._C.NumberType.get()))
    for linear in [node for node in graph.nodes() if node.kind() == "aten::linear"]:
        inputs, weight, bias = linear.inputs()
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
