"""The training loop, one for all networks.

The dataset is held as tensors and augmented a batch at a time, so that no Python runs per example. A validation split
picks the epoch and fits the temperature; the test set is not used here. ``catalog.py`` has the settings of each model
(epochs, rates, size of the split).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (the field's usual name)
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from handlers.preparation import Preparation
from handlers.signature import Input
from models.augmentation import Batches
from models.calibration import fit_temperature
from models.catalog import Entry, Training
from models.datasets import Dataset
from models.errors import DataError
from models.training_step import bfloat16_products, dropout

# Examples per call of the network in evaluation; larger chunks do not fit into the processor's cache.
CHUNK_SIZE = 256
# Steps of small networks take microseconds; updating the progress bar each time would cost more than the step.
STEPS_PER_REFRESH = 16
# Without a terminal there is no progress bar; an epoch that ends this long after the last line gets a line.
SECONDS_PER_LINE = 10.0


@dataclasses.dataclass(frozen=True)
class Epoch:
    """Results of one epoch: mean training loss, validation loss and accuracy (0-1), training speed."""

    train_loss: float
    validation_loss: float
    validation_accuracy: float
    images_per_second: float


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network on the CPU in evaluation mode, its fitted temperature, and the history of its training."""

    network: nn.Module
    temperature: float
    history: list[Epoch]
    best_epoch: int
    seconds: float
    device: str


def scale(inputs: Tensor, spec: Input) -> Tensor:
    """Pad and scale examples [N, *shape] to float32; images stay [N, H, W] for augmentation."""
    return Preparation(spec).scale(inputs)


def prepare(inputs: Tensor, spec: Input) -> Tensor:
    """Pad, scale and reshape examples [N, *shape] to the network's input, float32 [N, *network_shape]."""
    return Preparation(spec)(inputs)


def forward(network: nn.Module, inputs: Tensor) -> Tensor:
    """Scores of any number of prepared inputs, computed in chunks, without gradients."""
    with torch.inference_mode():
        return torch.cat([network(chunk) for chunk in torch.split(inputs, CHUNK_SIZE)])


def probabilities(scores: Tensor, activation: str, temperature: float = 1.0) -> Tensor:
    """Probabilities of scores [N, labels], float32; a network with ``sigmoid`` has applied it itself.

    With ``none`` the scores are the answers.
    """
    return (scores / temperature).softmax(1) if activation == "softmax" else scores


def loss_of(scores: Tensor, targets: Tensor, activation: str) -> Tensor:
    """Cross-entropy for one class of several, mean squared error for independent labels."""
    return F.mse_loss(scores, targets) if activation == "sigmoid" else F.cross_entropy(scores, targets)


def correct(scores: Tensor, targets: Tensor, activation: str) -> Tensor:
    """Which decisions are right: [N] for one class of several, [N, labels] for independent labels; bool."""
    return (scores >= 0.5) == (targets >= 0.5) if activation == "sigmoid" else scores.argmax(1) == targets


def _add_dropout(network: nn.Module, rates: dict[str, float]) -> None:
    """Drop out the inputs of the named layers while training."""

    def hook(rate: float) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        return lambda module, inputs: (dropout(inputs[0], rate) if module.training else inputs[0], *inputs[1:])

    for name, rate in rates.items():
        network.get_submodule(name).register_forward_pre_hook(hook(rate))


def _optimizer(
    network: nn.Module, settings: Training, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), lr=settings.learning_rate), None
    adamw = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(adamw, settings.learning_rate, total_steps=steps, pct_start=0.2)
    return adamw, schedule


def train(
    entry: Entry,
    dataset: Dataset,
    settings: Training,
    seed: int,
    console: Console,
    start: nn.Module | None = None,
) -> Trained:
    """Train one network; the same seed on the same machine gives the same weights.

    Args:
        entry: the model to train.
        dataset: its data.
        settings: usually ``entry.training``.
        seed: of the initial weights, the split, the order of examples, augmentation and dropout.
        console: receives the progress bar, or lines without a terminal.
        start: a network whose weights are the initial ones; ``None`` for random weights.

    Returns:
        The network of the epoch with the best validation accuracy.

    Raises:
        DataError: without the validation split, the dataset has fewer examples than a batch.
        KeyboardInterrupt: stopped by the user; nothing has been written.
    """
    count, validation, size = len(dataset.train_inputs), settings.validation, settings.batch_size
    steps = (count - validation) // size
    if steps < 1:
        raise DataError(
            f"{entry.name}: {count} training examples, {validation} of them for validation, leave less than a batch of "
            f"{size}; add examples, or lower validation or batch_size in models/catalog.py"
        )
    started = time.monotonic()
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    generator = torch.Generator().manual_seed(seed)

    network: nn.Module = entry.network()
    if start:
        network.load_state_dict(start.state_dict())
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    targets = dataset.train_targets.to(device)
    inputs = scale(dataset.train_inputs, entry.input).to(device)
    order = torch.randperm(len(inputs), generator=generator).to(device)
    held_out, kept = order[:validation], order[validation:]
    validation_inputs = inputs[held_out].reshape(-1, *entry.input.network_shape)
    validation_targets = targets[held_out]

    optimizer, schedule = _optimizer(network, settings, steps * settings.epochs)
    _add_dropout(network, settings.dropout)
    batches = Batches(inputs, settings, generator)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))  # type: ignore[no-untyped-call]

    history: list[Epoch] = []
    last_line = time.monotonic()
    best = -1.0, 0, dict[str, Tensor]()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[shown]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # Transient, because the caller prints the result in its place.
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(entry.name, total=settings.epochs * steps, shown="")
        for epoch in range(settings.epochs):
            network.train()
            begin = time.monotonic()
            shuffled = kept[torch.randperm(len(kept), generator=generator).to(device)]
            total = torch.zeros((), device=device)
            for step, chosen in enumerate(torch.split(shuffled[: steps * size], size)):
                batch = batches[chosen].reshape(-1, *entry.input.network_shape)
                optimizer.zero_grad()
                with bfloat16_products():
                    loss = loss_of(network(batch), targets[chosen], entry.activation)
                    loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                if schedule:
                    schedule.step()
                average.update_parameters(network)
                total += loss.detach()
                if step % STEPS_PER_REFRESH == 0:
                    progress.update(task, completed=epoch * steps + step)
            rate = steps * size / (time.monotonic() - begin)

            candidate: nn.Module = average.module.eval()
            scores = forward(candidate, validation_inputs)
            validation_loss = loss_of(scores, validation_targets, entry.activation).item()
            accuracy = correct(scores, validation_targets, entry.activation).float().mean().item()
            history.append(Epoch(total.item() / steps, validation_loss, accuracy, rate))
            if accuracy > best[0]:
                best = accuracy, epoch, {name: value.clone() for name, value in candidate.state_dict().items()}
            shown = f"loss {history[-1].train_loss:.3f}  accuracy {accuracy:.4f}  {rate:,.0f} images/s"
            progress.update(task, completed=(epoch + 1) * steps, shown=shown)
            due = time.monotonic() - last_line >= SECONDS_PER_LINE
            if due and not console.is_terminal and epoch + 1 < settings.epochs:
                line = f"{entry.name} epoch {epoch + 1}/{settings.epochs}  {shown}"
                console.print(line, highlight=False, soft_wrap=True)
                last_line = time.monotonic()

    chosen_network = entry.network().to(device).eval()
    chosen_network.load_state_dict(best[2])
    temperature = 1.0
    if entry.activation == "softmax":
        temperature = fit_temperature(forward(chosen_network, validation_inputs).cpu(), validation_targets.cpu())
    return Trained(chosen_network.cpu(), temperature, history, best[1], time.monotonic() - started, str(device))
