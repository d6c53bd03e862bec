"""A perceptron with one hidden layer, its layers named by an ``OrderedDict``."""

from collections import OrderedDict

from torch import nn


def get_training_model(in_features: int = 4, hidden_dim: int = 8, nb_classes: int = 3) -> nn.Sequential:
    """Build the network; [N, in_features] float32 in, [N, nb_classes] scores out."""
    return nn.Sequential(
        OrderedDict(
            hidden_layer_1=nn.Linear(in_features, hidden_dim),
            activation_1=nn.ReLU(),
            output_layer=nn.Linear(hidden_dim, nb_classes),
        )
    )
