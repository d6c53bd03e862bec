"""A signature of each kind of model, for tests of the handlers."""

from __future__ import annotations

from handlers.signature import Input, Output, Signature

LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION = Signature(
    "fashion", "1.0", "Clothes.", Input("image", "image", (28, 28), (784,), gain=1 / 255), Output("softmax", LABELS)
)
PADDED = Signature(
    "padded",
    "1.0",
    "Clothes, with padding.",
    Input("image", "image", (28, 28), (1, 32, 32), padding=2, gain=2 / 255, bias=-1.0),
    Output("softmax", LABELS, temperature=1.5),
)
WIDE = Signature("wide", "1.0", "Small signs.", Input("image", "image", (6, 10), (60,)), Output("softmax", ("a", "b")))
COLOR = Signature(
    "color",
    "1.0",
    "Colors.",
    Input(
        *("image", "image", (3, 8, 12), (3, 8, 12)),
        gain=(1 / 255, 2 / 255, 3 / 255),
        bias=(-0.5, 0.0, 0.5),
        resize="stretch",
    ),
    Output("softmax", ("a", "b", "c")),
)
VECTOR = Signature(
    "blobs", "1.0", "Blobs.", Input("vector", "features", (4,), (4,)), Output("softmax", ("one", "two", "three"))
)
TENSOR = Signature(
    "tensor",
    "1.0",
    "Signals.",
    Input("tensor", "features", (2, 1, 3, 2), (2, 6), gain=(1.0, 0.5), bias=(0.0, 0.25)),
    Output("softmax", ("a", "b")),
)
NUMBERS = Signature(
    "numbers", "1.0", "A regression.", Input("vector", "features", (4,), (4,)), Output("none", ("price", "area"))
)
SIGMOID = Signature(
    "switches", "2.0", "Switches.", Input("vector", "features", (3,), (3,)), Output("sigmoid", ("left", "100%"))
)
