"""Command line: ``python -m models list|summary|train|import|quantize|evaluate|export|archive``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from models import artifacts, index_writer, lookup
from models.archiving import archive
from models.catalog import CATALOG, DEFAULT_VERSION, Entry, Model, get
from models.errors import ExportError, ModelsError

# Modules that import torch or matplotlib take seconds to import, so each command imports the ones it needs. Packing an
# unchanged archive, as every `make serve` does, needs none of them.

# A command. It is called once for each model that ``Choose`` returns for the arguments.
Run = Callable[[Any, argparse.Namespace], None]
Choose = Callable[[argparse.Namespace], Iterable[Any]]


def _entries(arguments: argparse.Namespace) -> Iterable[Entry]:
    return [get(name) for name in arguments.names] or CATALOG.values()


def _exportable(arguments: argparse.Namespace) -> Iterable[Entry]:
    for name in arguments.names:
        if not isinstance(lookup.find(name, arguments.version), Entry):
            raise ExportError(
                f"{name} {arguments.version} was imported and cannot be exported here; export it where it was trained, "
                "and take its steps in Python along, if it has some"
            )
    return _entries(arguments)


def _packable(arguments: argparse.Namespace) -> Iterable[Model]:
    names, version = arguments.names, arguments.version
    return [lookup.find(name, version) for name in names] or lookup.every(version)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models", description="Train, evaluate, export and archive networks."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Run, text: str, many: bool, choose: Choose = _entries) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=text, description=text)
        if many:
            subparser.add_argument("names", nargs="*", metavar="NAME", help="models (default: all)")
        else:
            subparser.add_argument("names", nargs=1, metavar="NAME", help="a model of the catalog")
        subparser.add_argument("--version", default=DEFAULT_VERSION, help="model version (default: %(default)s)")
        subparser.set_defaults(run=run, choose=choose)
        return subparser

    listing = commands.add_parser("list", help="print the names of all models, one per line")
    listing.set_defaults(run=lambda entry, _: print(entry.name), names=[], choose=_entries)
    command("summary", _summary, "print a network's structure, shapes and parameters", many=False)
    training = command("train", _train, "train, score and export; writes artifacts/<model>/<version>/", many=True)
    training.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    training.add_argument("--quick", action="store_true", help="one epoch: for tests, not for serving")
    training.add_argument("--if-missing", action="store_true", help="skip versions that are already trained")
    _add_import(commands)
    quantizing = command("quantize", _quantize, "write an int8 copy of a trained version as a new version", many=False)
    quantizing.add_argument(
        "--from", dest="source", default=DEFAULT_VERSION, help="version to quantize (default: %(default)s)"
    )
    command("evaluate", _evaluate, "score a trained version on the test set again", many=True)
    exporting = command(
        "export", _export, "write a trained version in a form that other servers run", many=True, choose=_exportable
    )
    exporting.add_argument(
        "--target", choices=("torchscript", "onnx", "pt2", "triton"), default="torchscript", help="default: %(default)s"
    )
    packing = command(
        "archive", _archive, "pack a trained or imported version into model_store/", many=True, choose=_packable
    )
    packing.add_argument("--train-missing", action="store_true", help="train a missing version first")
    packing.add_argument("--sign", type=Path, metavar="FILE", help="sign the index with this Ed25519 private key")
    return parser


def _add_import(commands: Any) -> None:
    text = "bring a network that was trained elsewhere; writes artifacts/<model>/<version>/"
    importing = commands.add_parser("import", help=text, description=text)
    importing.add_argument("names", nargs=1, metavar="NAME", help="name of the model in URLs")
    importing.add_argument("--version", default=DEFAULT_VERSION, help="model version (default: %(default)s)")
    importing.add_argument(
        "--network", type=Path, required=True, metavar="FILE", help="TorchScript, or a state dict with --class"
    )
    importing.add_argument("--class", dest="class_name", metavar="MODULE:CLASS", help="network of a state dict")
    importing.add_argument(
        "--labels", type=Path, metavar="FILE", help="the label of each score, one a line; not needed for numbers"
    )
    importing.add_argument(
        "--examples",
        type=Path,
        required=True,
        metavar="PATH",
        help="a folder with a subfolder of pictures for each label, or a .npz file with inputs and targets",
    )
    importing.add_argument(
        "--scores",
        choices=("softmax", "sigmoid", "none"),
        default="softmax",
        help="one class of several, independent labels, or plain numbers (default: %(default)s)",
    )
    importing.add_argument(
        "--input", type=_shape, metavar="SHAPE", help="shape of one example, such as 3x64x64; needed with a folder"
    )
    scaling = "one number or one for each channel or feature, with commas; pixels are 0 to 1"
    importing.add_argument(
        "--mean", type=_numbers, default=(0.0,), help=f"subtracted from each value: {scaling} (default: 0)"
    )
    importing.add_argument(
        "--std", type=_numbers, default=(1.0,), help="divides the difference, as --mean (default: 1)"
    )
    importing.add_argument(
        "--resize",
        choices=("stretch", "fit", "crop"),
        default="stretch",
        help="how the training resized pictures (default: %(default)s)",
    )
    importing.add_argument(
        "--steps",
        type=_class_of_file,
        metavar="FILE.py:CLASS",
        help="a class with the methods before and after, called around the network for each example",
    )
    importing.set_defaults(run=_import, choose=lambda arguments: arguments.names)


def _shape(text: str) -> tuple[int, ...]:
    lengths = text.split("x")
    if not all(length.isascii() and length.isdecimal() and int(length) > 0 for length in lengths):
        raise argparse.ArgumentTypeError(f"must be whole numbers with x between them, such as 28x28, got '{text}'")
    return tuple(map(int, lengths))


def _class_of_file(text: str) -> tuple[Path, str]:
    file, _, name = text.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"must be a Python file and its class, such as steps.py:Steps, got '{text}'")
    return Path(file), name


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"must be numbers with commas between them, such as 0.5,0.4,0.3, got '{text}'")
    return numbers


def _import(name: str, arguments: argparse.Namespace) -> None:
    from models.importing import Source, import_network, main_figures

    fields = ("network", "labels", "examples", "scores", "class_name", "mean", "std", "resize", "steps")
    source = Source(shape=arguments.input, **{field: getattr(arguments, field) for field in fields})
    metrics = import_network(name, arguments.version, source)
    figures = ", ".join(f"{figure.replace('_', ' ')} {value:.4f}" for figure, value in main_figures(metrics).items())
    print(
        f"{name} {arguments.version}: imported, {figures} on {metrics['scored_examples']} examples → "
        f"{artifacts.folder(name, arguments.version)}"
    )


def _summary(entry: Entry, arguments: argparse.Namespace) -> None:
    from models.building import load_network
    from models.summary import summary

    trained = _is_trained(entry, arguments.version)
    print(summary(entry, load_network(entry, arguments.version) if trained else entry.network()))


def _train(entry: Entry, arguments: argparse.Namespace) -> None:
    if not (arguments.if_missing and _is_trained(entry, arguments.version)):
        result = _build(entry, arguments.version, arguments.seed, arguments.quick)
        print(f"{result} → {artifacts.folder(entry.name, arguments.version)}")


def _is_trained(entry: Entry, version: str) -> bool:
    return (artifacts.folder(entry.name, version) / artifacts.METRICS).is_file()


def _build(entry: Entry, version: str, seed: int = 0, short: bool = False) -> str:
    """Train one version; return a line with its figures."""
    from models.building import build, quick

    settings = quick(entry.training) if short else entry.training
    metrics = build(entry, version, settings, seed, Console(stderr=True))
    return (
        f"{entry.name} {version}: trained in {metrics['train_seconds']:.0f} s, test accuracy "
        f"{metrics['test_accuracy']:.4f}, calibration error {metrics['expected_calibration_error']:.4f}"
    )


def _quantize(entry: Entry, arguments: argparse.Namespace) -> None:
    from models.quantizing import quantize

    source, version = arguments.source, arguments.version
    metrics = quantize(entry, source, version)
    print(
        f"{entry.name} {version}: int8 of {source}, test accuracy {metrics['test_accuracy']:.4f}, probabilities "
        f"changed by at most {metrics['largest_difference']:.3f} → {artifacts.folder(entry.name, version)}"
    )


def _evaluate(entry: Entry, arguments: argparse.Namespace) -> None:
    from models.building import evaluate_again

    print(json.dumps(evaluate_again(entry, arguments.version), indent=2))


def _export(entry: Entry, arguments: argparse.Namespace) -> None:
    if arguments.target != "torchscript":
        from models.portable import export

        print(f"{entry.name} {arguments.version}: → {export(entry, arguments.version, arguments.target)}")
        return
    from models.building import export_again

    path, count = export_again(entry, arguments.version)
    print(f"{entry.name} {arguments.version}: checked on {count} examples → {path}")


def _archive(model: Model, arguments: argparse.Namespace) -> None:
    start = f"{model.name} {arguments.version}: "
    # Read first, because training takes minutes.
    key = index_writer.private_key(arguments.sign) if arguments.sign else None
    if arguments.train_missing and isinstance(model, Entry) and not _is_trained(model, arguments.version):
        # Packing finishes this line, so that a first run fits on a screen.
        print(_build(model, arguments.version), end="; ", flush=True)
        start = ""
    path, changed = archive(model, arguments.version)
    if key:
        index_writer.sign(path.parent, key)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    print(f"{start}{'packed' if changed else 'unchanged'}{', signed' if key else ''} → {shown}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0 done, 1 failed with a one-line error, 2 wrong usage, 130 stopped by Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        for model in arguments.choose(arguments):
            arguments.run(model, arguments)
    except (ModelsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; no partial files are left", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
