"""What the command line shows to people, on rich."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from fashion_client.results import Model, Prediction, Tensor

BAR_WIDTH = 40


def show_prediction(prediction: Prediction, console: Console) -> None:
    """The label, and a bar for each probability, the likeliest first."""
    console.print(f"[bold]{escape(prediction.label)}[/bold]", highlight=False)
    table = Table.grid(padding=(0, 1))
    table.add_column()
    table.add_column()
    table.add_column(justify="right")
    for label, probability in sorted(prediction.probabilities.items(), key=lambda item: -item[1]):
        bar = ProgressBar(total=1.0, completed=probability, width=BAR_WIDTH)
        table.add_row(escape(label), bar, f"{probability:.1%}")
    console.print(table)


def show_models(models: Iterable[Model], console: Console) -> None:
    """A table of models: what each takes and returns."""
    table = Table("Model", "Versions", "Takes", "Returns", box=None)
    for model in models:
        cells = (model.name, ", ".join(model.versions), _tensors(model.inputs), _tensors(model.outputs))
        table.add_row(*map(escape, cells))
    console.print(table)


def _tensors(tensors: Iterable[Tensor]) -> str:
    def axes(tensor: Tensor) -> str:
        return ", ".join("N" if length < 0 else str(length) for length in tensor.shape)

    return "\n".join(f"{tensor.name} {tensor.datatype} [{axes(tensor)}]" for tensor in tensors)
