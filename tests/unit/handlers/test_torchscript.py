"""Optimized networks compute the same scores as those in the archives."""

import warnings

import pytest
import torch

from handlers.torchscript import OptimizedNetwork
from models.networks.fashion_convnet import FashionConvNet
from models.networks.fashion_mlp import FashionMLP
from models.networks.sigmoid_net import SigmoidNet

CPU = torch.device("cpu")
SHAPES = {"FashionMLP": (784,), "FashionConvNet": (1, 32, 32), "SigmoidNet": (3,)}


@pytest.fixture(params=[FashionMLP, FashionConvNet, SigmoidNet])
def network(request):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        # torch has deprecated TorchScript, which archives hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        yield torch.jit.script(request.param().eval())


def inputs(network, count):
    shape = SHAPES[network.original_name]
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(count))


def kinds(network):
    return {node.kind() for node in network.graph.nodes()}


def test_scores_are_the_same_for_batches_of_every_size(network):
    optimized = OptimizedNetwork(network, CPU)
    with torch.inference_mode():
        for count in (1, 2, 1, 2, 7, 64, 300, 1):
            examples = inputs(network, count)
            torch.testing.assert_close(optimized(examples), network(examples), atol=1e-5, rtol=1e-5)


def test_the_original_network_keeps_its_gradients(network):
    with torch.inference_mode():
        OptimizedNetwork(network, CPU)(inputs(network, 2))
    examples = inputs(network, 2).requires_grad_()
    network(examples).sum().backward()
    assert examples.grad.abs().sum() > 0


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")
@pytest.mark.parametrize(
    ("network", "replaced", "by"),
    [
        (FashionConvNet, "aten::conv2d", "prim::mkldnn_convolution"),
        (FashionMLP, "aten::linear", "mkldnn::_linear_pointwise"),
        (SigmoidNet, "aten::linear", "mkldnn::_linear_pointwise"),
    ],
)
def test_onednn_computes_several_examples_but_not_a_single_one(network, replaced, by):
    optimized = OptimizedNetwork(torch.jit.script(network().eval()), CPU)
    assert replaced in kinds(optimized.single)
    assert by in kinds(optimized.several)
    assert replaced not in kinds(optimized.several)


def test_on_a_gpu_the_network_is_only_frozen():
    # The passes for the CPU would pack the weights. The graph shows that without a GPU.
    optimized = OptimizedNetwork(torch.jit.script(FashionConvNet().eval()), torch.device("cuda:0"))
    assert optimized.several is optimized.single
    assert "aten::conv2d" in kinds(optimized.single)
