"""Each network has exactly the layers, names and shapes of the design."""

import pytest
import torch

from models.catalog import CATALOG
from models.networks.blobs_mlp import get_training_model

STRUCTURES = {
    "fashion_mlp": """\
FashionMLP(
  (flatten): Flatten(start_dim=1, end_dim=-1)
  (linear_relu_stack): Sequential(
    (0): Linear(in_features=784, out_features=512, bias=True)
    (1): ReLU()
    (2): Linear(in_features=512, out_features=512, bias=True)
    (3): ReLU()
    (4): Linear(in_features=512, out_features=10, bias=True)
  )
)""",
    "fashion_convnet": """\
FashionConvNet(
  (conv1): Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1))
  (conv2): Conv2d(6, 16, kernel_size=(5, 5), stride=(1, 1))
  (fc1): Linear(in_features=400, out_features=120, bias=True)
  (fc2): Linear(in_features=120, out_features=84, bias=True)
  (fc3): Linear(in_features=84, out_features=10, bias=True)
)""",
    "blobs_mlp": """\
Sequential(
  (hidden_layer_1): Linear(in_features=4, out_features=8, bias=True)
  (activation_1): ReLU()
  (output_layer): Linear(in_features=8, out_features=3, bias=True)
)""",
    "sigmoid_net": """\
SigmoidNet(
  (lin1): Linear(in_features=3, out_features=5, bias=True)
  (lin2): Linear(in_features=5, out_features=2, bias=True)
)""",
}

PARAMETERS = {
    "fashion_mlp": {
        "linear_relu_stack.0.weight": [512, 784],
        "linear_relu_stack.0.bias": [512],
        "linear_relu_stack.2.weight": [512, 512],
        "linear_relu_stack.2.bias": [512],
        "linear_relu_stack.4.weight": [10, 512],
        "linear_relu_stack.4.bias": [10],
    },
    "fashion_convnet": {
        "conv1.weight": [6, 1, 5, 5],
        "conv1.bias": [6],
        "conv2.weight": [16, 6, 5, 5],
        "conv2.bias": [16],
        "fc1.weight": [120, 400],
        "fc1.bias": [120],
        "fc2.weight": [84, 120],
        "fc2.bias": [84],
        "fc3.weight": [10, 84],
        "fc3.bias": [10],
    },
    "blobs_mlp": {
        "hidden_layer_1.weight": [8, 4],
        "hidden_layer_1.bias": [8],
        "output_layer.weight": [3, 8],
        "output_layer.bias": [3],
    },
    "sigmoid_net": {"lin1.weight": [5, 3], "lin1.bias": [5], "lin2.weight": [2, 5], "lin2.bias": [2]},
}

COUNTS = {"fashion_mlp": 669_706, "fashion_convnet": 61_706, "blobs_mlp": 67, "sigmoid_net": 32}


def test_the_catalog_lists_the_four_networks():
    assert list(CATALOG) == list(STRUCTURES)


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_names_shapes_and_counts(name):
    network = CATALOG[name].network()
    assert str(network) == STRUCTURES[name]
    assert {key: list(value.shape) for key, value in network.named_parameters()} == PARAMETERS[name]
    assert sum(value.numel() for value in network.parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("batch", [1, 5])
def test_a_network_returns_one_score_per_label(name, batch):
    entry = CATALOG[name]
    scores = entry.network()(torch.rand(batch, *entry.input.network_shape))
    assert scores.shape == (batch, len(entry.labels))
    if entry.activation == "sigmoid":
        assert ((scores > 0) & (scores < 1)).all()


def test_get_training_model_takes_its_sizes():
    network = get_training_model(in_features=6, hidden_dim=11, nb_classes=2)
    assert network(torch.rand(3, 6)).shape == (3, 2)
    assert network.state_dict()["hidden_layer_1.weight"].shape == (11, 6)
