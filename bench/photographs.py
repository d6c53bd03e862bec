"""How often the image models are right about photographs of clothes, and a picture of what they saw.

    python -m bench.photographs FOLDER      FOLDER holds one folder of photographs for each kind of KINDS

Prints the share of right answers by kind and of the sure ones, and the calibration error, of the weights for
photographs and of the usual ones; writes docs/images/photographs.jpg.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torchmetrics.functional.classification import binary_calibration_error

from handlers.inputs import images
from models import artifacts
from models.building import load_network
from models.catalog import CATALOG, DEFAULT_VERSION
from models.evaluation import ERROR_BINS
from models.fashion_mnist import KINDS, LABELS
from models.training import forward, prepare, probabilities

MODELS = ("fashion_mlp", "fashion_convnet")
# A caller who acts on an answer without looking wants one that is at least this probable.
SURE = 0.9
PICTURE = Path("docs/images/photographs.jpg")
# In the picture: photographs of each kind, the edge of a photograph, and the height of the text below it, in pixels.
SHOWN, EDGE_PX, TEXT_PX = 3, 168, 44


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Photographs, their kinds, the pixels that the models get, and which the network for photographs answers.

    ``pixels`` are uint8 ``[N, 28, 28]``, ``on_floors`` bool ``[N]``: the others have a plain background.
    """

    paths: list[Path]
    kinds: NDArray[np.str_]
    pixels: NDArray[np.uint8]
    on_floors: NDArray[np.bool_]


def load(folder: Path, names: Iterable[str] = KINDS) -> Photographs:
    """Decode all photographs of the kinds ``names`` as the service does; print how long one takes.

    Raises:
        SystemExit: a kind has no folder, or no file in it.
    """
    paths, kinds = list[Path](), list[str]()
    for kind in names:
        found = sorted((folder / kind).glob("*"))
        if not found:
            sys.exit(f"error: {folder / kind} has no photographs; FOLDER needs one folder each for {', '.join(names)}")
        paths += found
        kinds += [kind] * len(found)
    began = time.perf_counter()
    shape = CATALOG[MODELS[0]].input.shape
    decoders = [images.Decoder() for _ in paths]
    pairs = zip(decoders, paths, strict=True)
    pixels = np.stack([decoder.decode(path.read_bytes(), (shape[0], shape[1])) for decoder, path in pairs])
    print(f"{len(paths)} photographs, {(time.perf_counter() - began) / len(paths) * 1000:.0f} ms each")
    return Photographs(paths, np.array(kinds), pixels, np.array([bool(decoder.photographs) for decoder in decoders]))


def answers(model: str, photographs: Photographs) -> dict[str, NDArray[np.float32]]:
    """The model's probabilities, float32 ``[N, labels]``, with the usual weights and as the service answers."""
    entry, output = CATALOG[model], artifacts.signature(model, DEFAULT_VERSION).output
    inputs = prepare(torch.from_numpy(photographs.pixels), entry.input)
    usual = probabilities(forward(load_network(entry, DEFAULT_VERSION), inputs), entry.activation, output.temperature)
    if output.photograph_temperature is None:
        sys.exit(f"error: {model} {DEFAULT_VERSION} has no weights for photographs; run: make train MODEL={model}")
    path = artifacts.folder(model, DEFAULT_VERSION) / artifacts.PHOTOGRAPHS
    network = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    own = probabilities(forward(network, inputs), entry.activation, output.photograph_temperature)
    served = np.where(photographs.on_floors[:, np.newaxis], own.numpy(), usual.numpy())
    return {"usual weights": usual.numpy(), "as served": served}


def draw(photographs: Photographs, chances: NDArray[np.float32]) -> Image.Image:
    """Some photographs of each kind, each with what the model saw and answered; a wrong answer is red."""
    font = ImageFont.load_default(13)
    sheet = Image.new("RGB", (SHOWN * 2 * EDGE_PX, len(KINDS) * (EDGE_PX + TEXT_PX)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, kind in enumerate(KINDS):
        places = np.flatnonzero(photographs.kinds == kind)
        # Evenly spread over the sorted names, so that nobody chose them.
        for column, place in enumerate(places[np.linspace(0, len(places) - 1, SHOWN).astype(int)]):
            left, top = column * 2 * EDGE_PX, row * (EDGE_PX + TEXT_PX)
            with Image.open(photographs.paths[place]) as file:
                sheet.paste(ImageOps.pad(ImageOps.exif_transpose(file), (EDGE_PX, EDGE_PX), color="white"), (left, top))
            seen = Image.fromarray(photographs.pixels[place]).resize((EDGE_PX, EDGE_PX), Image.Resampling.NEAREST)
            sheet.paste(seen, (left + EDGE_PX, top))
            label, chance = LABELS[chances[place].argmax()], chances[place].max()
            color = "black" if label in KINDS[kind] else "#c00000"
            pen.text((left + 4, top + EDGE_PX + 4), f"{kind}: {label} {chance:.2f}", color, font)
    return sheet


def report(photographs: Photographs, chances: NDArray[np.float32]) -> str:
    """The figures of the probabilities float32 ``[N, labels]``, as two lines."""
    pairs = zip(chances.argmax(1), photographs.kinds, strict=True)
    right = np.array([LABELS[index] in KINDS[kind] for index, kind in pairs])
    sure = chances.max(1) >= SURE
    by_kind = "  ".join(f"{kind} {right[photographs.kinds == kind].mean():.2f}" for kind in KINDS)
    error = binary_calibration_error(torch.from_numpy(chances.max(1)), torch.from_numpy(right), ERROR_BINS)
    return (
        f"right {right.mean():.3f}; of {sure.sum()} answers of at least {SURE}, {right[sure].sum()} right "
        f"({right[sure].sum() / right.sum():.2f} of the right ones); calibration error {error:.3f}\n  {by_kind}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="one folder of photographs for each kind")
    photographs = load(parser.parse_args().folder)
    for model in MODELS:
        chances = answers(model, photographs)
        for name, values in chances.items():
            print(f"{model}, {name}: {report(photographs, values)}")
    draw(photographs, chances["as served"]).save(PICTURE, quality=80, optimize=True)
    print(f"{PICTURE}: with the answers of {model}")


if __name__ == "__main__":
    main()
