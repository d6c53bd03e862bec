"""``MODEL_CARD.md``, made from the signature and the metrics.

The form follows Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

from __future__ import annotations

from typing import Any

from handlers.signature import Signature
from models.evaluation import ERROR_BINS

_NUMBER_LIMITS = (
    "The figures hold for data like these examples. The network returns numbers for every input, even for one that is "
    "unlike\nall of them."
)
_LIMITS = (
    "The figures hold for data like the test set. The network assigns its labels to every input, even to one that "
    "shows none\nof them. A low probability is the only hint."
)


def card(signature: Signature, metrics: dict[str, Any], structure: str) -> str:
    """The card as Markdown."""
    settings = "\n".join(f"| {name} | {value} |" for name, value in metrics["training"].items())
    versions = ", ".join(f"{name} {version}" for name, version in metrics["library_versions"].items())
    command = f"train {signature.model} --version {signature.version} --seed {metrics['seed']}"
    precision = "float32"
    if source := metrics.get("quantized_from"):
        command = f"quantize {signature.model} --version {signature.version} --from {source}"
        precision = f"int8, of version {source}; probabilities changed by at most {metrics['largest_difference']:.3f}"
    background = " on a black background" if signature.input.kind == "image" else ""
    return f"""# {signature.model} {signature.version}

{signature.description}

| | |
|---|---|
| data | {signature.trained_on["dataset"]} |
| input | {_input(signature)}{background} |
| output | {_output(signature)} |
{_quality(signature, metrics)}
| precision | {precision} |
| trained in | {metrics["train_seconds"]:.0f} s on {metrics["device"]}, {metrics["images_per_second"]:,.0f} images/s |

The validation split picked epoch {metrics["best_epoch"]} of {metrics["training"]["epochs"]} and fitted the temperature;
the test set was used once, at the end.

{_by_class(metrics)}
![Training curves](curves.png)

## Limits

{_LIMITS}

## How to reproduce it

`python -m models {command}` with {versions}.

| setting | value |
|---|---|
{settings}

{_origins(metrics, structure)}"""


def imported_card(signature: Signature, metrics: dict[str, Any], structure: str) -> str:
    """The card of an imported version as Markdown."""
    if signature.output.activation == "none":
        quality, details, limits = _number_quality(metrics), _by_value(metrics), _NUMBER_LIMITS
    else:
        quality, details, limits = _quality(signature, metrics), _by_class(metrics), _LIMITS
    examples = f"{metrics['scored_examples']:,} of {metrics['examples']:,} in {signature.trained_on['dataset']}"
    return f"""# {signature.model} {signature.version}

{signature.description}

| | |
|---|---|
| network | {metrics["imported_from"]}, trained elsewhere |
| scored on | {examples} |
| input | {_input(signature)} |
| output | {_output(signature)} |
{quality}

{details}
## Limits

{limits} If the network was trained with some of these examples, the figures are too good.

## Files

{_origins(metrics, structure)}"""


def _input(signature: Signature) -> str:
    numbers = {"image": "pixels 0-255", "vector": "float32 features", "tensor": "float32"}[signature.input.kind]
    return f"{' x '.join(map(str, signature.input.shape))}, {numbers}"


def _output(signature: Signature) -> str:
    if signature.output.activation == "none":
        return f"{len(signature.output.labels)} numbers, float32"
    return f"{signature.output.activation} over {', '.join(signature.output.labels)}"


def _quality(signature: Signature, metrics: dict[str, Any]) -> str:
    """The rows with the main figures."""
    return f"""| test accuracy | {metrics["test_accuracy"]:.4f} |
| expected calibration error ({ERROR_BINS} bins) | {metrics["expected_calibration_error"]:.4f} |
| temperature | {signature.output.temperature:.4f} |
| parameters | {metrics["parameters"]:,} |"""


def _by_class(metrics: dict[str, Any]) -> str:
    per_class = "\n".join(
        f"| {label} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} |"
        for label, row in metrics["per_class"].items()
    )
    return f"""## By class

| class | precision | recall | F1 |
|---|---|---|---|
{per_class}

![Confusion matrix](confusion_matrix.png)
![Worst mistakes](errors.png)
"""


def _number_quality(metrics: dict[str, Any]) -> str:
    """The rows with the main figures of numbers, or of an embedding."""
    names = {
        "mean_absolute_error": "mean absolute error",
        "root_mean_squared_error": "root mean squared error",
        "r2": "R² (share of the variance explained)",
        "nearest_neighbor_accuracy": "examples whose nearest other one is of their class",
    }
    rows = [f"| {text} | {metrics[name]:.4f} |" for name, text in names.items() if name in metrics]
    return "\n".join([*rows, f"| parameters | {metrics['parameters']:,} |"])


def _by_value(metrics: dict[str, Any]) -> str:
    if "per_value" not in metrics:
        return ""
    per_value = "\n".join(
        f"| {label} | {row['mean_absolute_error']:.4g} | {row['root_mean_squared_error']:.4g} | {row['r2']:.3f} |"
        for label, row in metrics["per_value"].items()
    )
    return f"""## By value

| value | mean absolute error | root mean squared error | R² |
|---|---|---|---|
{per_value}
"""


def _origins(metrics: dict[str, Any], structure: str) -> str:
    """Digests of the data, and the network's layers."""
    digests = "\n".join(f"| {part} | `{digest}` |" for part, digest in metrics["dataset_digests"].items())
    return f"""| data | SHA-256 |
|---|---|
{digests}

```
{structure}
```
"""
