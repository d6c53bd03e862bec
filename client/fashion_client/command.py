"""The command line: ``fashion predict``, ``fashion explain`` and ``fashion models``.

Results go to standard output, errors in one line to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Column, Table

from fashion_client._base import DEFAULT_MODEL, DEFAULT_URL, KEY_VARIABLE, URL_VARIABLE
from fashion_client._progress import progress_bar
from fashion_client.client import FashionClient
from fashion_client.errors import (
    AnswerError,
    AnswerTimeoutError,
    BusyError,
    ConnectError,
    FashionError,
    InputError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    TlsError,
)
from fashion_client.results import Model, Prediction, Tensor

EXIT_PARTLY = 1
EXIT_USAGE = 2
EXIT_NO_ANSWER = 3
EXIT_REFUSED = 4
EXIT_BUSY = 5
EXIT_FAILED = 6
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

EPILOG = f"""\
environment:
  {URL_VARIABLE}      the service's address, if --url is not given ({DEFAULT_URL})
  {KEY_VARIABLE}  the API key, if the service requires one

exit codes:
  0    done
  {EXIT_PARTLY}    some of several images have no prediction; the output has each error
  {EXIT_USAGE}    wrong arguments, or a file that cannot be read or written
  {EXIT_NO_ANSWER}    no connection, no secure connection, or no answer in time
  {EXIT_REFUSED}    the service refused the request: no such model, a wrong API key, not an image
  {EXIT_BUSY}    the service is busy or not ready; try again later
  {EXIT_FAILED}    the service failed, or its answer is invalid
  {EXIT_INTERRUPTED}  interrupted
  {EXIT_BROKEN_PIPE}  the program that reads the output has closed it
"""

_BAR_WIDTH = 40

# Suffixes of the images in a folder. A file named on the command line may have any suffix. A format that the service
# does not take is here too, because an error for a photo is better than none.
_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".avif", ".heic", ".heif", ".tif", ".tiff"}
)

# Errors that every further image would cause too.
_FATAL_ERRORS = (ConnectError, TlsError, AnswerTimeoutError, AnswerError, BusyError, NotAllowedError, NotFoundError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; argparse raises SystemExit(2) for wrong arguments."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace, FashionClient], int] = arguments.run
    try:
        with FashionClient(arguments.url) as client:
            return run(arguments, client)
    except FashionError as error:
        print(f"fashion: {error}", file=sys.stderr)
        return _exit_code(error)
    except BrokenPipeError:
        # Python flushes standard output again at exit, which would print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        print("fashion: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--url", help=f"the service's address (default: ${URL_VARIABLE} or {DEFAULT_URL})")
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("--model", default=DEFAULT_MODEL, help="the model's name (default: %(default)s)")

    parser = argparse.ArgumentParser(
        prog="fashion",
        description="Classify images with a fashion-serve service.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    predict = commands.add_parser(
        "predict",
        parents=[shared, model],
        help="predict one image or many",
        description="One file: its probabilities as bars. A folder, a glob or several files: one CSV line per image.",
    )
    predict.add_argument("images", nargs="+", metavar="image", help="an image file, a folder of images, or a glob")
    predict.add_argument("--top-k", type=_count, metavar="K", help="show only the K likeliest labels")
    predict.add_argument("--json", action="store_true", help="print one line of JSON per image")
    predict.add_argument("-o", "--output", type=Path, metavar="FILE", help="write CSV or JSON lines to a file")
    predict.set_defaults(run=_predict)

    explain = commands.add_parser(
        "explain",
        parents=[shared, model],
        help="show which parts of an image support a label",
        description="Write a heat map over the image, of the parts that support a label and those that oppose it.",
    )
    explain.add_argument("image", help="an image file")
    explain.add_argument("-o", "--output", type=Path, metavar="FILE", required=True, help="the PNG file to write")
    explain.add_argument("--target", metavar="LABEL", help="a label or its index (default: the likeliest)")
    explain.set_defaults(run=_explain)

    models = commands.add_parser(
        "models",
        parents=[shared],
        help="list the models",
        description="List the models with their inputs and outputs.",
    )
    models.add_argument("--json", action="store_true", help="print one line of JSON per model")
    models.set_defaults(run=_models)
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, got {text!r}")
    return int(text)


def _predict(arguments: argparse.Namespace, client: FashionClient) -> int:
    paths = [path for image in arguments.images for path in _image_files(image)]
    # Folders and globs give one line per image, even for a single image.
    if paths != [Path(arguments.images[0])]:
        return _predict_set(paths, arguments, client)
    prediction = client.predict(paths[0], model=arguments.model, top_k=arguments.top_k)
    if arguments.json or arguments.output:
        with _output(arguments.output) as file:
            _writer(file, arguments)(paths[0], prediction)
    else:
        _show_prediction(prediction)
    return 0


def _predict_set(paths: Sequence[Path], arguments: argparse.Namespace, client: FashionClient) -> int:
    # Rows that are printed to the terminal show the progress already.
    bar = sys.stderr.isatty() and (arguments.output is not None or not sys.stdout.isatty())
    each = client.predict_each(paths, model=arguments.model, top_k=arguments.top_k)
    failed = 0
    with (
        _output(arguments.output) as file,
        progress_bar(len(paths), shown=bar) as advance,
        contextlib.closing(each) as outcomes,
    ):
        write = _writer(file, arguments)
        for path, outcome in zip(paths, outcomes, strict=True):
            if isinstance(outcome, _FATAL_ERRORS):
                raise outcome
            write(path, outcome)
            failed += isinstance(outcome, FashionError)
            advance(1)
    if failed:
        print(f"fashion: {failed} of {len(paths)} images have no prediction", file=sys.stderr)
    return EXIT_PARTLY if failed else 0


def _explain(arguments: argparse.Namespace, client: FashionClient) -> int:
    picture = client.heat_map(Path(arguments.image), model=arguments.model, target=arguments.target)
    try:
        arguments.output.write_bytes(picture)
    except OSError as error:
        raise InputError(f"{arguments.output}: {error.strerror}") from error
    return 0


def _models(arguments: argparse.Namespace, client: FashionClient) -> int:
    models = [client.model(name) for name in client.models()]
    if arguments.json:
        for model in models:
            print(json.dumps(dataclasses.asdict(model)))
    else:
        _show_models(models)
    return 0


def _image_files(argument: str) -> list[Path]:
    """The file itself, or the images in a folder or the files that match a glob, sorted by name.

    Raises:
        InputError: the folder has no images, or no file matches the glob.
    """
    path = Path(argument)
    if path.is_dir():
        images = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
        if not images:
            raise InputError(f"{argument}: the folder has no images (such as .jpg, .png or .webp)")
        return images
    if any(character in argument for character in "*?[") and not path.exists():
        pattern = str(path.relative_to(path.anchor))
        matches = sorted(file for file in Path(path.anchor).glob(pattern) if file.is_file())
        if not matches:
            raise InputError(f"{argument}: no file matches")
        return matches
    return [path]


def _show_prediction(prediction: Prediction) -> None:
    """Print the label, and a bar for each probability, the likeliest first."""
    console = Console()
    console.print(f"[bold]{escape(prediction.label)}[/bold]", highlight=False)
    if prediction.is_unfamiliar:
        console.print(
            f"Not sure: the image is unlike the training data ({prediction.ood:.2f}, where 95 % of known images stay "
            f"below {prediction.ood_threshold:.2f})",
            highlight=False,
        )
    table = Table.grid(Column(), Column(), Column(justify="right"), padding=(0, 1))
    for label, probability in sorted(prediction.probabilities.items(), key=lambda item: -item[1]):
        bar = ProgressBar(total=1.0, completed=probability, width=_BAR_WIDTH)
        table.add_row(escape(label), bar, f"{probability:.1%}")
    console.print(table)


def _show_models(models: Iterable[Model]) -> None:
    """Print a table of the models with their inputs and outputs."""
    table = Table("Model", "Versions", "Inputs", "Outputs", box=None)
    for model in models:
        cells = (model.name, ", ".join(model.versions), _tensors(model.inputs), _tensors(model.outputs))
        table.add_row(*map(escape, cells))
    Console().print(table)


def _tensors(tensors: Iterable[Tensor]) -> str:
    def axes(tensor: Tensor) -> str:
        return ", ".join("N" if length < 0 else str(length) for length in tensor.shape)

    return "\n".join(f"{tensor.name} {tensor.datatype} [{axes(tensor)}]" for tensor in tensors)


def _output(path: Path | None) -> contextlib.AbstractContextManager[TextIO]:
    if path is None:
        return contextlib.nullcontext(sys.stdout)
    try:
        # newline="", because the csv module writes line ends itself.
        return path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _writer(file: TextIO, arguments: argparse.Namespace) -> Callable[[Path, Prediction | FashionError], None]:
    if arguments.json:
        return lambda path, outcome: print(json.dumps(_record(path, outcome)), file=file)
    ranks = range(2, (arguments.top_k or 1) + 1)
    columns = ["file", "class", "label", "probability"]
    columns += [f"{column}_{rank}" for rank in ranks for column in ("label", "probability")]
    rows = csv.DictWriter(file, [*columns, "error"], restval="", lineterminator="\n")
    rows.writeheader()

    def write(path: Path, outcome: Prediction | FashionError) -> None:
        row = _record(path, outcome)
        row.pop("ood", None)
        likeliest = sorted(row.pop("probabilities", {}).items(), key=lambda item: -item[1])
        for rank, (label, probability) in zip(ranks, likeliest[1:], strict=False):
            row |= {f"label_{rank}": label, f"probability_{rank}": probability}
        rows.writerow({name: f"{value:.6f}" if isinstance(value, float) else value for name, value in row.items()})

    return write


def _record(path: Path, outcome: Prediction | FashionError) -> dict[str, Any]:
    if isinstance(outcome, FashionError):
        return {"file": str(path), "error": str(outcome)}
    record = {
        "file": str(path),
        "class": outcome.class_index,
        "label": outcome.label,
        "probability": outcome.probability,
        "probabilities": dict(outcome.probabilities),
    }
    return record if outcome.ood is None else {**record, "ood": outcome.ood}


def _exit_code(error: FashionError) -> int:
    if isinstance(error, InputError):
        return EXIT_USAGE
    if isinstance(error, (ConnectError, TlsError, AnswerTimeoutError)):
        return EXIT_NO_ANSWER
    if isinstance(error, RefusedError):
        return EXIT_REFUSED
    return EXIT_BUSY if isinstance(error, BusyError) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
