"""``MODEL_CARD.md``, made from the signature and the metrics.

The form follows Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

from __future__ import annotations

from typing import Any

from handlers.signature import Signature
from models.evaluation import ERROR_BINS


def card(signature: Signature, metrics: dict[str, Any], structure: str) -> str:
    """The card as Markdown."""
    shape = " x ".join(map(str, signature.input.shape))
    per_class = "\n".join(
        f"| {label} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} |"
        for label, row in metrics["per_class"].items()
    )
    settings = "\n".join(f"| {name} | {value} |" for name, value in metrics["training"].items())
    digests = "\n".join(f"| {part} | `{digest}` |" for part, digest in metrics["dataset_digests"].items())
    versions = ", ".join(f"{name} {version}" for name, version in metrics["library_versions"].items())
    command = f"train {signature.model} --version {signature.version} --seed {metrics['seed']}"
    precision = "float32"
    if source := metrics.get("quantized_from"):
        command = f"quantize {signature.model} --version {signature.version} --from {source}"
        precision = f"int8, of version {source}; probabilities changed by at most {metrics['largest_difference']:.3f}"
    pixels = "pixels 0-255 on a black background" if signature.input.kind == "image" else "float32 features"
    return f"""# {signature.model} {signature.version}

{signature.description}

| | |
|---|---|
| data | {signature.trained_on["dataset"]} |
| input | {shape}, {pixels} |
| output | {signature.output.activation} over {", ".join(signature.output.labels)} |
| test accuracy | {metrics["test_accuracy"]:.4f} |
| expected calibration error ({ERROR_BINS} bins) | {metrics["expected_calibration_error"]:.4f} |
| temperature | {signature.output.temperature:.4f} |
| parameters | {metrics["parameters"]:,} |
| precision | {precision} |
| trained in | {metrics["train_seconds"]:.0f} s on {metrics["device"]}, {metrics["images_per_second"]:,.0f} images/s |

The validation split picked epoch {metrics["best_epoch"]} of {metrics["training"]["epochs"]} and fitted the temperature;
the test set was used once, at the end.

## By class

| class | precision | recall | F1 |
|---|---|---|---|
{per_class}

![Training curves](curves.png)
![Confusion matrix](confusion_matrix.png)
![Worst mistakes](errors.png)

## Limits

The figures hold for data like the test set. The network assigns its labels to every input, even to one that shows none
of them. A low probability is the only hint.

## How to reproduce it

`python -m models {command}` with {versions}.

| setting | value |
|---|---|
{settings}

| data | SHA-256 |
|---|---|
{digests}

```
{structure}
```
"""
