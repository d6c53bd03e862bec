"""The one place that lists the models that are trained here: network, dataset, signature and defaults of each.

To add a network, write one file in ``models/networks/`` and one entry here. Training, evaluation, export, archive,
serving, documentation checks and tests take the rest from the entry.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from typing import TYPE_CHECKING, Literal

from handlers.signature import Input
from models import fashion_mnist
from models.errors import UnknownModelError

if TYPE_CHECKING:
    from torch import nn

DEFAULT_VERSION = "1.0"


@dataclasses.dataclass(frozen=True)
class Training:
    """Defaults of ``python -m models train``.

    Attributes:
        epochs: passes over the training split.
        batch_size: examples per step.
        learning_rate: the peak of the one-cycle schedule for AdamW, constant for SGD.
        optimizer: ``adamw`` (one-cycle schedule, Smith and Topin 2019) or ``sgd`` (constant rate).
        weight_decay: decoupled decay of AdamW.
        flip: mirror half of the images left to right.
        shift: the largest random shift of an image along each axis, in pixels.
        dropout: dropout rate before each named layer; the network itself has no dropout layers.
        averaging: decay per step of the weights' moving average, which is evaluated and kept; 0 keeps the last weights.
        validation: training examples held out to pick the epoch and to fit the temperature.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.0
    flip: bool = False
    shift: int = 0
    dropout: dict[str, float] = dataclasses.field(default_factory=dict)
    averaging: float = 0.0
    validation: int = 5000


@dataclasses.dataclass(frozen=True)
class Serving:
    """What goes into the archive's ``model-config.yaml``.

    Attributes:
        workers: worker processes per version. A single worker answers its batch in parts
            (handlers/transport/pipeline.py). Several workers answer whole batches; the best batch size is then a
            quarter of the number of concurrent callers.
        batch_size: the most requests that a worker holds at once. It computes most of them in one call.
        max_batch_delay_ms: how long TorchServe waits for a batch to fill while the worker is idle, in whole
            milliseconds from the batch's first job.
        unbatched_worker: one more worker answers a request that is alone in flight at the gateway, so that it does not
            wait for a batch to fill. Without it a lone caller waits ``max_batch_delay_ms``. It needs a worker's memory.
        response_timeout_s: seconds without an answer after which TorchServe replaces the worker.
    """

    workers: int = 1
    batch_size: int = 128
    max_batch_delay_ms: int = 1
    unbatched_worker: bool = True
    # The largest bulk request takes about a second. 15 s is half of the gateway's limit for two tries
    # (proxy_next_upstream_timeout), so that another worker still answers the requests of a hung one.
    response_timeout_s: int = 15


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What packing must know of a model, whether it is trained here or imported.

    Attributes:
        name: the name in URLs, archives and folders.
        handler: the module in ``handlers/`` that serves it.
        accuracy_floor: the lowest ``test_accuracy`` that may be archived.
        serving: defaults of serving.
    """

    name: str
    handler: str
    accuracy_floor: float
    serving: Serving = Serving()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry(Model):
    """A model that is trained here.

    Attributes:
        description: one sentence for the model card and the API.
        network_name: ``module.callable`` in ``models/networks/`` that builds the network.
        dataset: a key of ``models.datasets.DATASETS``.
        input: one example, as the signature describes it.
        activation: ``softmax`` for one class of several, ``sigmoid`` for independent labels.
        labels: the name of each score, in order.
        training: defaults of training.
        photographs: how weights for photographs are trained, after those for the data set's own pictures; ``None`` for
            models that take none.
    """

    description: str
    network_name: str
    dataset: str
    input: Input
    activation: Literal["softmax", "sigmoid"]
    labels: tuple[str, ...]
    training: Training
    photographs: Training | None = None

    def network(self) -> nn.Module:
        """Build the network with random weights. Only this call imports torch, because few commands need it."""
        network: nn.Module = pkgutil.resolve_name(f"models.networks.{self.network_name.replace('.', ':')}")()
        return network


# Mean and standard deviation of the pixels of the 60,000 training images, scaled to 0-1.
FASHION_MEAN, FASHION_STD = 0.2860, 0.3530
FASHION_GAIN, FASHION_BIAS = 1 / (255 * FASHION_STD), -FASHION_MEAN / FASHION_STD


def _photographs(epochs: int) -> Training:
    return Training(
        epochs=epochs,
        batch_size=512,
        learning_rate=2e-3,
        weight_decay=0.05,
        flip=True,
        shift=1,
        averaging=0.998,
        validation=3000,
    )


CATALOG: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="fashion_mlp",
            description="Fully connected network that tells ten kinds of clothing apart.",
            network_name="fashion_mlp.FashionMLP",
            dataset="fashion_mnist",
            input=Input("image", "image", (28, 28), (784,), gain=FASHION_GAIN, bias=FASHION_BIAS),
            activation="softmax",
            labels=fashion_mnist.LABELS,
            handler="image_classifier",
            accuracy_floor=0.895,
            training=Training(
                epochs=55,
                batch_size=512,
                learning_rate=4e-3,
                weight_decay=0.1,
                flip=True,
                shift=1,
                dropout={"linear_relu_stack.2": 0.1, "linear_relu_stack.4": 0.1},
                averaging=0.998,
                validation=3000,
            ),
            photographs=_photographs(epochs=6),
        ),
        Entry(
            name="fashion_convnet",
            description="LeNet-style convolutional network that tells ten kinds of clothing apart.",
            network_name="fashion_convnet.FashionConvNet",
            dataset="fashion_mnist",
            input=Input("image", "image", (28, 28), (1, 32, 32), padding=2, gain=FASHION_GAIN, bias=FASHION_BIAS),
            activation="softmax",
            labels=fashion_mnist.LABELS,
            handler="image_classifier",
            accuracy_floor=0.915,
            training=Training(
                epochs=60,
                batch_size=256,
                learning_rate=4e-3,
                weight_decay=0.02,
                flip=True,
                shift=1,
                dropout={"fc1": 0.1},
                averaging=0.998,
            ),
            photographs=_photographs(epochs=4),
        ),
        Entry(
            name="blobs_mlp",
            description="Small network that tells three Gaussian blobs apart by four features.",
            network_name="blobs_mlp.get_training_model",
            dataset="blobs",
            input=Input("vector", "features", (4,), (4,)),
            activation="softmax",
            labels=("blob 0", "blob 1", "blob 2"),
            handler="vector_classifier",
            accuracy_floor=0.95,
            training=Training(epochs=20, batch_size=64, learning_rate=1e-2, validation=800),
        ),
        Entry(
            name="sigmoid_net",
            description="Small network that gives two independent probabilities for three features.",
            network_name="sigmoid_net.SigmoidNet",
            dataset="two_labels",
            input=Input("vector", "features", (3,), (3,)),
            activation="sigmoid",
            labels=("sum", "difference"),
            handler="vector_classifier",
            accuracy_floor=0.90,
            training=Training(epochs=40, batch_size=8, learning_rate=0.01, optimizer="sgd", validation=1600),
        ),
    )
}


def get(name: str) -> Entry:
    """The entry of one model.

    Raises:
        UnknownModelError: the catalog does not list ``name``.
    """
    if name not in CATALOG:
        raise UnknownModelError(f"no model named '{name}' in models/catalog.py; it lists {', '.join(CATALOG)}")
    return CATALOG[name]
