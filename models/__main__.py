"""Command line: ``python -m models list|summary|train|quantize|evaluate|export|archive``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from models import artifacts
from models.archiving import archive
from models.catalog import CATALOG, DEFAULT_VERSION, PROFILES, Entry, get
from models.errors import ModelsError

# All that imports torch or draws is imported where it is used: that takes seconds, and packing an unchanged archive,
# which every `make serve` does, needs none of it.


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models", description="Train, evaluate, export and archive networks."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, many: bool) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        if many:
            made.add_argument("names", nargs="*", metavar="NAME", help="models of the catalog; all if none is named")
        else:
            made.add_argument("names", nargs=1, metavar="NAME", help="a model of the catalog")
        made.add_argument("--version", default=DEFAULT_VERSION, help="model version (default: %(default)s)")
        return made

    commands.add_parser("list", help="names of the catalog, one a line")
    command("summary", "structure, shapes and parameters of a network", many=False)
    training = command("train", "train, score and export; writes artifacts/<model>/<version>/", many=True)
    training.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    training.add_argument("--quick", action="store_true", help="one epoch: for tests, not for serving")
    training.add_argument("--if-missing", action="store_true", help="leave versions alone that are trained already")
    quantizing = command("quantize", "write a trained version's int8 form as a version of its own", many=False)
    quantizing.add_argument("--from", dest="source", default=DEFAULT_VERSION, help="(default: %(default)s)")
    command("evaluate", "score a trained version on the test set again", many=True)
    command("export", "write the TorchScript file of a trained version again", many=True)
    packing = command("archive", "pack a trained version into model_store/", many=True)
    packing.add_argument("--train-missing", action="store_true", help="first train what is not trained yet")
    packing.add_argument("--profile", choices=PROFILES, default=PROFILES[0], help="(default: %(default)s)")
    return parser


def _train(entry: Entry, version: str, console: Console, seed: int = 0, short: bool = False) -> str:
    from models.building import build, quick

    settings = quick(entry.training) if short else entry.training
    metrics = build(entry, version, settings, seed, console)
    return (
        f"{entry.name} {version}: trained in {metrics['train_seconds']:.0f} s, test accuracy "
        f"{metrics['test_accuracy']:.4f}, calibration error {metrics['expected_calibration_error']:.4f}"
    )


def _quantize(entry: Entry, source: str, version: str) -> str:
    from models.quantizing import quantize

    metrics = quantize(entry, source, version)
    return (
        f"{entry.name} {version}: int8 of {source}, test accuracy {metrics['test_accuracy']:.4f}, no probability moved "
        f"by more than {metrics['largest_difference']:.3f} → {artifacts.folder(entry.name, version)}"
    )


def _is_trained(entry: Entry, version: str) -> bool:
    return (artifacts.folder(entry.name, version) / artifacts.METRICS).is_file()


def _evaluate(entry: Entry, version: str) -> str:
    from models.building import load_network
    from models.datasets import DATASETS
    from models.evaluation import evaluate
    from models.training import forward, prepare, probabilities

    dataset = DATASETS[entry.dataset]()
    network = load_network(entry, version)
    signature = artifacts.signature(entry.name, version)
    scores = forward(network, prepare(dataset.test_inputs, entry.input))
    answers = probabilities(scores, entry.activation, signature.output.temperature)
    return json.dumps(evaluate(answers, dataset.test_targets, entry.activation, entry.labels), indent=2)


def _export(entry: Entry, version: str) -> str:
    from models.building import EXPORT_CHECKED, load_network
    from models.datasets import DATASETS
    from models.exporting import export
    from models.training import prepare

    examples = prepare(DATASETS[entry.dataset]().test_inputs[:EXPORT_CHECKED], entry.input)
    path = artifacts.folder(entry.name, version) / artifacts.TORCHSCRIPT
    export(load_network(entry, version), examples, entry.activation, path)
    return f"{entry.name} {version}: checked on {len(examples)} examples → {path}"


def _summary(entry: Entry, version: str) -> str:
    from models.building import load_network
    from models.summary import summary

    return summary(entry, load_network(entry, version) if _is_trained(entry, version) else entry.network())


def _archive(entry: Entry, version: str, profile: str) -> str:
    path, changed = archive(entry, version, profile=profile)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{entry.name} {version}: {'packed' if changed else 'unchanged'} → {shown}"


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Carry out one command; raises ``ModelsError`` for what the user can mend."""
    if arguments.command == "list":
        print("\n".join(CATALOG))
        return
    version = arguments.version
    for entry in [get(name) for name in arguments.names] or list(CATALOG.values()):
        match arguments.command:
            case "summary":
                print(_summary(entry, version))
            case "train":
                if not (arguments.if_missing and _is_trained(entry, version)):
                    trained = _train(entry, version, console, arguments.seed, arguments.quick)
                    print(f"{trained} → {artifacts.folder(entry.name, version)}")
            case "quantize":
                print(_quantize(entry, arguments.source, version))
            case "evaluate":
                print(_evaluate(entry, version))
            case "export":
                print(_export(entry, version))
            case "archive":
                if arguments.train_missing and not _is_trained(entry, version):
                    # Its end is told with that of the next step, so that a first run fits on a screen.
                    print(_train(entry, version, console), end="; ", flush=True)
                    print(_archive(entry, version, arguments.profile).partition(": ")[2], flush=True)
                else:
                    print(_archive(entry, version, arguments.profile))


def main(given: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a failure told in one line, 2 wrong usage, 130 stopped by Ctrl-C."""
    arguments = _parser().parse_args(given)
    try:
        run(arguments, Console(stderr=True))
    except (ModelsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: nothing half-written is left", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
