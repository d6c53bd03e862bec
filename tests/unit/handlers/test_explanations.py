"""Attributions and heat maps, of the catalog's networks with seeded random weights."""

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.outputs import explanations
from handlers.signature import Input, Output, Signature
from models.networks.fashion_convnet import FashionConvNet
from models.networks.fashion_mlp import FashionMLP
from models.networks.sigmoid_net import SigmoidNet

LABELS = Output("softmax", tuple("abcdefghij"))
MLP = Signature("mlp", "1", "", Input("image", "image", (28, 28), (784,), gain=1 / 255), LABELS)
CONVNET = Signature(
    "conv", "1", "", Input("image", "image", (28, 28), (1, 32, 32), padding=2, gain=1 / 128, bias=-1.0), LABELS
)
SIGMOID = Signature("s", "1", "", Input("vector", "features", (3,), (3,)), Output("sigmoid", ("a", "b")))
CASES = {
    "fashion_mlp": (FashionMLP, MLP),
    "fashion_convnet": (FashionConvNet, CONVNET),
    "sigmoid_net": (SigmoidNet, SIGMOID),
}


def inputs_for(signature, count):
    """Random examples as the classifier prepares them."""
    contract = signature.input
    values = torch.rand(count, *contract.shape, generator=torch.Generator().manual_seed(1))
    if contract.kind == "image":
        values = torch.nn.functional.pad((values * 255).round(), (contract.padding,) * 4)
    return (values * contract.gain + contract.bias).reshape(-1, *contract.network_shape)


class Counted(torch.nn.Module):
    """A linear layer that counts the examples of each call."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(values, 2)
        self.counts: list[int] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.counts.append(len(inputs))
        scores: torch.Tensor = self.linear(inputs.flatten(1))
        return scores


def test_large_examples_are_explained_in_small_calls():
    shape = (3, 300, 400)
    spec = Input("image", "image", shape, shape, gain=(1 / 255, 2 / 255, 3 / 255), bias=(0.0, 1.0, 2.0))
    torch.manual_seed(0)
    network = Counted(3 * 300 * 400)
    inputs = torch.rand(3, *shape)
    explained = explanations.explain(network, inputs, [0, 1, 0], Signature("l", "1", "", spec, Output("none", ("a",))))
    assert max(network.counts) <= 2
    black = torch.tensor([0.0, 1.0, 2.0]).reshape(3, 1, 1)
    expected = (inputs - black) * network.linear.weight[[0, 1, 0]].reshape(3, *shape)
    np.testing.assert_allclose(explained, expected.detach(), atol=1e-6)


@pytest.fixture(params=CASES)
def case(request):
    make, signature = CASES[request.param]
    torch.manual_seed(0)
    return torch.jit.script(make().eval()), signature


@pytest.mark.parametrize("form", ["scripted", "frozen"])
def test_attributions_add_up_to_the_difference_of_the_scores(case, form):
    network, signature = case
    if form == "frozen":
        network = torch.jit.freeze(network)
    count = explanations.CHUNK + 2
    with torch.inference_mode():  # as in the classifier
        inputs = inputs_for(signature, count)
        targets = [index % len(signature.output.labels) for index in range(count)]
        attributions = explanations.explain(network, inputs, targets, signature)
        black = torch.full_like(inputs[:1], signature.input.bias)
        expected = (network(inputs) - network(black))[range(count), targets]
    assert attributions.shape == (count, *signature.input.shape)
    assert attributions.dtype == np.float32
    np.testing.assert_allclose(attributions.reshape(count, -1).sum(1), expected.numpy(), atol=1.5e-3, rtol=0.01)


def test_attributions_of_a_linear_network_are_weight_times_value():
    signature = Signature("l", "1", "", Input("vector", "features", (3,), (3,)), Output("softmax", ("a", "b")))
    network = torch.nn.Linear(3, 2)
    inputs = torch.tensor([[1.0, -2.0, 3.0], [0.0, 5.0, 1.0]])
    attributions = explanations.explain(torch.jit.script(network), inputs, [0, 1], signature)
    np.testing.assert_allclose(attributions, (network.weight * inputs).detach().numpy(), rtol=1e-4, atol=1e-6)


def test_every_example_is_explained_as_it_would_be_alone(case):
    network, signature = case
    inputs = inputs_for(signature, explanations.CHUNK + 1)
    together = explanations.explain(network, inputs, [1] * len(inputs), signature)
    alone = explanations.explain(network, inputs[-1:], [1], signature)
    np.testing.assert_allclose(together[-1:], alone, atol=1e-6)


def test_explaining_changes_neither_inputs_nor_network(case):
    network, signature = case
    inputs = inputs_for(signature, 1)
    before, scores = inputs.clone(), network(inputs)
    explanations.explain(network, inputs, [0], signature)
    assert torch.equal(inputs, before)
    assert not inputs.requires_grad
    assert torch.equal(network(inputs), scores)
    assert all(parameter.grad is None for parameter in network.parameters())


def read(file):
    with Image.open(io.BytesIO(file)) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        return np.asarray(picture)


def test_the_heat_map_colors_pixels_for_and_against_the_label():
    image = np.full((28, 28), 200, np.uint8)
    attribution = np.zeros((28, 28), np.float32)
    attribution[3, 4], attribution[20, 21] = 0.5, -0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read(explanations.heat_map_png(image, attribution))
    assert picture.shape == (280, 280, 3)
    assert (picture[30:40, 40:50] == explanations.FOR).all()
    assert (picture[200:210, 210:220] == explanations.AGAINST).all()
    picture = picture.copy()
    picture[30:40, 40:50] = picture[200:210, 210:220] = 100
    assert (picture == 100).all()


def test_the_heat_map_of_zero_attributions_is_the_image():
    image = np.arange(784, dtype=np.uint32).reshape(28, 28).astype(np.uint8)
    picture = read(explanations.heat_map_png(image, np.zeros((28, 28), np.float32)))
    np.testing.assert_allclose(picture[5::10, 5::10, 0], image / 2, atol=0.5)


def test_predictions_do_not_import_captum():
    command = "import sys; import handlers.classifier, handlers.image_classifier; sys.exit('captum' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True)
