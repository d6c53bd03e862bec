"""Examples with their answers, by which an imported network is scored: pictures in folders, or arrays in a .npz file.

    folder/<label>/<picture>.png …    the subfolder is the label; any picture format of the service
    examples.npz                      inputs   uint8 pixels [N, height, width], [N, 3, height, width] or
                                               [N, height, width, 3]; or numbers [N, features] or [N, …]
                                      targets  softmax: integers [N], each a place in the list of labels
                                               sigmoid: 0 or 1 [N, labels]
                                               none: the right numbers [N, values], or [N] if there is one;
                                               or for embeddings the class of each example, integers [N]

Pictures are decoded by the service's own code, so that the figures hold for the files that callers send.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handlers.inputs import images, json_numbers
from handlers.problems import Problem
from handlers.signature import Activation, Kind, Resize
from models.errors import DataError


@dataclasses.dataclass(frozen=True)
class Examples:
    """Labeled examples.

    Attributes:
        name: of their file or folder.
        digest: SHA-256 of the file, or of the folder's files and their names.
        kind: of the input, as in the signature.
        inputs: uint8 pixels [N, height, width] or [N, 3, height, width], or float32 [N, features] or [N, …].
        targets: int64 [N] class indices; float32 [N, labels] of 0 and 1 for independent labels; or numbers, float32
            [N, values].
    """

    name: str
    digest: str
    kind: Kind
    inputs: Tensor
    targets: Tensor


def read(
    path: Path, labels: tuple[str, ...], scores: Activation, shape: tuple[int, ...] | None, resize: Resize
) -> Examples:
    """Read labeled examples.

    Args:
        path: a folder with a subfolder for each label, or a .npz file.
        labels: the names of the network's scores, in order.
        scores: their meaning, which decides the form of the targets.
        shape: of one example; needed for a folder of pictures, else that of the file by default.
        resize: the rule for the size of pictures in a folder.

    Raises:
        DataError: the examples are missing, damaged, or do not match labels or shape.
    """
    if path.is_dir():
        return _folder(path, labels, scores, shape, resize)
    if not path.is_file():
        raise DataError(f"{path} does not exist; pass a folder of pictures or a .npz file with --examples")
    arrays = _arrays(path)
    kind, inputs = _inputs(path, arrays["inputs"])
    targets = _targets(path, arrays["targets"], labels, scores)
    if len(inputs) != len(targets):
        raise DataError(f"{path}: inputs holds {len(inputs)} examples, but targets {len(targets)}; save one per input")
    if shape not in (None, inputs.shape[1:]):
        raise DataError(f"{path}: an example has the shape {_text(inputs.shape[1:])}, but --input is {_text(shape)}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Examples(path.name, digest, kind, torch.from_numpy(inputs), torch.from_numpy(targets))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("inputs", "targets")}
    except KeyError:
        raise DataError(f"{path} must hold the arrays inputs and targets; write it with numpy.savez") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as a .npz file of numbers ({error})") from error


def _inputs(path: Path, values: NDArray[Any]) -> tuple[Kind, NDArray[Any]]:
    """The kind of input, and the inputs in the form of ``Examples``."""
    if values.dtype == np.uint8 and values.size and (pixels := _pixels(values)) is not None:
        return "image", np.ascontiguousarray(pixels)
    # Bytes with more axes are most likely pictures, such as those with an alpha channel.
    least, most = 2, 2 if values.dtype == np.uint8 else json_numbers.MAX_AXES
    if not least <= values.ndim <= most or not values.size or values.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: inputs must be uint8 pixels [N, height, width], [N, 3, height, width] or [N, height, width, 3], "
            f"or other numbers [N, features] or [N, …] of up to {most} axes, got {values.dtype} {list(values.shape)}"
        )
    numbers = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(numbers).all():
        raise DataError(f"{path}: inputs must be finite as float32")
    return "vector" if numbers.ndim == 2 else "tensor", numbers


def _pixels(values: NDArray[Any]) -> NDArray[Any] | None:
    """Pixels with their channels before height and width, and gray ones without channels; ``None`` if they are none."""
    if values.ndim == 4 and values.shape[1] not in (1, 3):
        values = np.moveaxis(values, -1, 1)
    if values.ndim == 4 and values.shape[1] == 1:
        return values[:, 0]
    return values if values.ndim == 3 or (values.ndim == 4 and values.shape[1] == 3) else None


def _targets(path: Path, values: NDArray[Any], labels: tuple[str, ...], scores: Activation) -> NDArray[Any]:
    if scores == "none":
        return _numbers(path, values)
    count = len(labels)
    if scores == "softmax":
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise DataError(
                f"{path}: targets must be integers [N] for softmax, got {values.dtype} {list(values.shape)}"
            )
        if len(values) and not 0 <= values.min() <= values.max() < count:
            wrong = values.min() if values.min() < 0 else values.max()
            raise DataError(
                f"{path}: targets must be from 0 to {count - 1}, because there are {count} labels, got {wrong}"
            )
        return values.astype(np.int64)
    if values.ndim != 2 or values.shape[1] != count or not np.isin(values, (0, 1)).all():
        raise DataError(
            f"{path}: targets must be 0 or 1 [N, {count}] for sigmoid with {count} labels, got {values.dtype} "
            f"{list(values.shape)}"
        )
    return values.astype(np.float32)


def _numbers(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """Targets for ``none``; integers [N] stay as they are, because they can be classes."""
    if values.ndim not in (1, 2) or values.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: targets must be numbers [N, values] for none, or classes as integers [N], got {values.dtype} "
            f"{list(values.shape)}"
        )
    if values.ndim == 1 and values.dtype.kind != "f":
        return values.astype(np.int64)
    numbers = values.astype(np.float32).reshape(len(values), -1)
    if not np.isfinite(numbers).all():
        raise DataError(f"{path}: targets must be finite as float32")
    return numbers


def _folder(
    path: Path, labels: tuple[str, ...], scores: Activation, shape: tuple[int, ...] | None, resize: Resize
) -> Examples:
    if scores == "sigmoid":
        raise DataError(f"{path}: a folder holds one label for each picture; for {scores} pass a .npz file")
    if shape is None or not (len(shape) == 2 or (len(shape) == 3 and shape[0] == 3)):
        raise DataError(
            f"{path}: the size of the network's pictures is missing; add, for example, --input 28x28 for gray or "
            "--input 3x64x64 for color"
        )
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    if scores == "none":
        labels = tuple(folder.name for folder in folders)
    if unknown := [folder.name for folder in folders if folder.name not in labels]:
        raise DataError(f"{path}: the folder '{unknown[0]}' is none of the labels, which are {', '.join(labels)}")
    digest = hashlib.sha256()
    pictures, targets = [], []
    for folder in folders:
        for file in sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")):
            body = file.read_bytes()
            digest.update(f"{folder.name}/{file.name}\0{len(body)}\0".encode() + body)
            try:
                pictures.append(images.decode(body, shape, resize=resize))
            except Problem as problem:
                raise DataError(f"{file}: {problem.detail}") from problem
            targets.append(labels.index(folder.name))
    if not pictures:
        raise DataError(f"{path} holds no pictures; put each into a subfolder with the name of its label")
    inputs = torch.from_numpy(np.stack(pictures))
    return Examples(path.name, digest.hexdigest(), "image", inputs, torch.tensor(targets))


def _text(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape or ()))
