"""Optimized networks compute the same scores as those in the archives."""

import warnings

import pytest
import torch

from handlers.torchscript import optimized, padded_count
from models import quantizing
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


def test_scores_are_those_of_the_original_network(network):
    fast = optimized(network, CPU)
    with torch.inference_mode():
        for count in (1, 2, 1, 2, 7, 64, 300, 1):
            examples = inputs(network, count)
            torch.testing.assert_close(fast(examples), network(examples), atol=1e-5, rtol=1e-5)


def test_an_example_has_the_same_scores_in_batches_of_every_size(network):
    fast = optimized(network, CPU)
    examples = inputs(network, 300)
    with torch.inference_mode():
        alone = torch.cat([fast(example[None]) for example in examples])
        for count in (*range(2, 257), 300):
            torch.testing.assert_close(fast(examples[:count]), alone[:count], atol=0, rtol=0)


def test_batches_have_few_sizes():
    sizes = [padded_count(count) for count in range(257)]
    assert all(0 <= size - count < max(1, count / 8) for count, size in enumerate(sizes))
    assert sizes[15:20] == [15, 16, 18, 18, 20]
    assert sizes[256] == 256
    assert len(set(sizes[1:])) == 48


def test_an_int8_network_is_optimized_too():
    torch.manual_seed(0)
    examples = torch.rand(300, 3)
    network = quantizing.convert(SigmoidNet().eval(), examples).eval()
    with torch.inference_mode():
        torch.testing.assert_close(optimized(network, CPU)(examples), network(examples), atol=0, rtol=0)


def test_the_original_network_keeps_its_gradients(network):
    with torch.inference_mode():
        optimized(network, CPU)(inputs(network, 2))
    examples = inputs(network, 2).requires_grad_()
    network(examples).sum().backward()
    assert examples.grad.abs().sum() > 0


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")
@pytest.mark.parametrize(
    ("network", "replaced", "by"),
    [
        (FashionConvNet, "aten::conv2d", "prim::mkldnn_convolution"),
        (FashionConvNet, "aten::linear", "mkldnn::_linear_pointwise"),
        (FashionMLP, "aten::linear", "mkldnn::_linear_pointwise"),
        (SigmoidNet, "aten::linear", "mkldnn::_linear_pointwise"),
    ],
)
def test_onednn_computes_the_layers(network, replaced, by):
    fast = optimized(torch.jit.script(network().eval()), CPU)
    assert by in kinds(fast)
    assert replaced not in kinds(fast)


def test_on_a_gpu_the_network_is_only_frozen():
    # The passes for the CPU would pack the weights. The graph shows that without a GPU.
    frozen = optimized(torch.jit.script(FashionConvNet().eval()), torch.device("cuda:0"))
    assert {"aten::conv2d", "aten::linear"} <= kinds(frozen)


class Computed(torch.nn.Module):
    """A linear layer whose weight is computed, and one without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.linear(x, self.first.weight * x.mean(), self.first.bias)
        scores: torch.Tensor = self.last(hidden.relu())
        return scores


def test_a_layer_whose_weight_is_computed_stays_as_it_is():
    torch.manual_seed(0)
    network = torch.jit.script(Computed().eval())
    copy = optimized(network, CPU)
    examples = torch.rand(5, 3)
    with torch.inference_mode():
        torch.testing.assert_close(copy(examples), network(examples), atol=1e-5, rtol=1e-5)
    assert "aten::linear" in kinds(copy)
