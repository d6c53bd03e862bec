"""A network that was trained elsewhere becomes an artifact, or is refused in one sentence that says why."""

import hashlib
import json
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from handlers import signature as signatures
from models import artifacts, lookup
from models.__main__ import main
from models.archiving import archive
from models.catalog import CATALOG, Model
from models.errors import ArtifactError, UnknownModelError

COUNT = 400
LABELS = ("low", "middle", "high")


class Sum(nn.Module):
    """Scores of the labels by the mean of an example's values; called with [N, values] or [N, 1, height, width]."""

    def __init__(self, scale: float = 40.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.centers: torch.Tensor
        self.register_buffer("centers", torch.tensor([0.25, 0.5, 0.75]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = -self.scale * (x.flatten(1).mean(1, keepdim=True) - self.centers) ** 2
        return scores


class Pictures(nn.Module):
    """As ``Sum``, but only for [N, 1, height, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)
        self.sum = Sum()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.sum(self.conv(x))
        return scores


class Then(nn.Module):
    """A network, and one more layer."""

    def __init__(self, network: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.network, self.layer = network, layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layer(self.network(x))
        return scores


class Flat(nn.Module):
    """Fails unless the batch has two examples."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 4)[:, :3]


class Whitening(nn.Module):
    """An example's scores depend on the others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(0))[:, :3]


class Infinite(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x / 0)[:, :3]


class Squeezed(nn.Module):
    """Returns one number without an axis."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


class Usual:
    """Steps that change nothing; those below differ in one."""

    def before(self, example):
        return example

    def after(self, outputs):
        return outputs


class Failing(Usual):
    def before(self, example):
        raise KeyError(example.shape)


class Refusing(Usual):
    def before(self, example):
        raise ValueError(f"{len(example)} values are too loud")


class Doubled(Usual):
    def before(self, example):
        return np.tile(example, 2)


class Square(Usual):
    def after(self, outputs):
        return np.outer(outputs, outputs)


class Endless(Usual):
    def after(self, outputs):
        return outputs + np.inf


class Fewer(Usual):
    def after(self, outputs):
        return outputs[:2]


class Softmax(Usual):
    def after(self, outputs):
        return np.exp(outputs) / np.exp(outputs).sum()


class Spectrum:
    """Of a tone of 64 samples the strength of its frequencies, and from the network's cells the tone."""

    def before(self, example):
        return np.abs(np.fft.rfft(example))

    def after(self, outputs):
        return outputs.sum(0)


class Cells(nn.Module):
    """[N, 33] in, [N, 2, 33] out: each frequency's share by its place, and nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = x / x.sum(1, keepdim=True)
        return torch.stack([shares, torch.zeros_like(x)], 1)


def save(network, path):
    """Write TorchScript, whose deprecation torch announces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(network.eval()), path)


def damaged(folder, inputs, targets):
    """Write the files that are refused."""
    arrays = {"inputs": inputs, "targets": targets}
    for name, changes in {
        "few": {"inputs": inputs[:19], "targets": targets[:19]},
        "uneven": {"targets": targets[:-1]},
        "wide": {"inputs": np.zeros((COUNT, 5))},
        "transparent": {"inputs": np.zeros((COUNT, 6, 8, 4), np.uint8)},
        "switches": {"targets": np.stack([targets // 2] * 3, 1)},
        "deep": {"inputs": np.zeros((COUNT, 4, *[1] * 7))},
        "infinite": {"inputs": np.full((COUNT, 4), np.inf)},
        "binary": {"targets": targets // 2},
        "beyond": {"targets": targets + 1},
        "fractions": {"targets": targets / 2},
        "objects": {"targets": targets.astype(object)},
        "texts": {"targets": targets.astype(str)},
        "unbounded": {"targets": np.full((COUNT, 3), np.nan)},
    }.items():
        np.savez(folder / f"{name}.npz", allow_pickle=True, **{**arrays, **changes})
    np.savez(folder / "unnamed.npz", inputs)
    (folder / "text.npz").write_text("text")
    (folder / "two.txt").write_text("low\nhigh\n")
    (folder / "twice.txt").write_text("low\nlow\nhigh\n")
    (folder / "empty.txt").write_text("\n")
    (folder / "text.pt").write_text("text")
    torch.save(Sum().state_dict(), folder / "weights.pt")
    torch.save([1], folder / "list.pt")
    save(nn.Linear(4, 3), folder / "linear.pt")
    for name in ("Flat", "Whitening", "Infinite", "Squeezed"):
        save(globals()[name](), folder / f"{name}.pt")
    for path in ("folders/low/a.png", "strange/other/a.png"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(b"\x89PNG\r\n\x1a\nrest")
    (folder / "none").mkdir()


@pytest.fixture(scope="module")
def _made(tmp_path_factory):
    """A folder with labels, examples and networks, whole and damaged; one target in ten is wrong."""
    folder = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(1)
    targets = random.integers(0, 3, COUNT)
    inputs = (np.array([0.25, 0.5, 0.75])[targets, None] + random.normal(0, 0.05, (COUNT, 4))).astype(np.float32)
    targets[::10] = (targets[::10] + 1) % 3
    np.savez(folder / "vectors.npz", inputs=inputs, targets=targets)
    pictures = np.repeat((inputs.clip(0, 1) * 255).astype(np.uint8), 12, 1).reshape(COUNT, 6, 8)
    np.savez(folder / "pictures.npz", inputs=pictures, targets=targets)
    (folder / "labels.txt").write_text("low\nmiddle\n\nhigh\n")
    save(Sum(), folder / "sum.pt")
    save(Pictures(), folder / "pictures.pt")
    damaged(folder, inputs, targets)
    return folder


@pytest.fixture
def folder(_made, tmp_path, artifacts_dir):
    """A copy of the files, which a test may change."""
    del artifacts_dir
    return shutil.copytree(_made, tmp_path / "files")


def run(folder, *arguments, network="sum.pt", labels="labels.txt", examples="vectors.npz", name="mine"):
    """The exit status of an import."""
    files = ["--network", folder / network, "--examples", folder / examples]
    if labels:
        files += ["--labels", folder / labels]
    return main(["import", name, *map(str, files), *arguments])


def expected(scores, temperature):
    return (torch.as_tensor(scores) / temperature).softmax(1).numpy()


def test_a_network_for_vectors_becomes_an_artifact(folder, capsys):
    assert run(folder) == 0
    written = artifacts.folder("mine", "1.0")
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert str(written) in shown
    signature = signatures.read(written / "signature.json")
    assert (signature.input.kind, signature.input.shape, signature.output.labels) == ("vector", (4,), LABELS)
    metrics = json.loads((written / "metrics.json").read_text())
    assert 0.8 < metrics["test_accuracy"] < 0.95
    assert f"{metrics['test_accuracy']:.4f}" in shown
    assert signature.scored["test_accuracy"] == metrics["test_accuracy"]
    assert np.sum(metrics["confusion_matrix"]) == metrics["scored_examples"] == COUNT // 2
    assert metrics["dataset_digests"]["sum.pt"] == hashlib.sha256((folder / "sum.pt").read_bytes()).hexdigest()
    # A tenth of the answers is wrong whatever the score, so the fitted temperature is far from 1.
    assert abs(signature.output.temperature - 1) > 0.05
    assert metrics["expected_calibration_error"] < 0.2
    golden = np.load(written / "golden.npz")
    scores = Sum()(torch.from_numpy(golden["inputs"])).detach()
    assert np.abs(golden["probabilities"] - expected(scores, signature.output.temperature)).max() < 1e-6
    card = (written / "MODEL_CARD.md").read_text()
    for part in (
        "# mine 1.0",
        "sum.pt, trained elsewhere",
        f"{metrics['test_accuracy']:.4f}",
        "4, float32",
        "| middle |",
    ):
        assert part in card
    for picture in ("confusion_matrix.png", "errors.png"):
        assert picture in card
        assert (written / picture).is_file()


@pytest.mark.parametrize(
    ("network", "shape"), [("pictures.pt", (1, 6, 8)), ("linear.pt", (48,))], ids=["with a channel axis", "flat"]
)
def test_a_network_for_gray_pictures_gets_the_shape_that_it_takes(folder, network, shape):
    torch.manual_seed(1)
    save(nn.Linear(48, 3), folder / "linear.pt")
    assert run(folder, network=network, examples="pictures.npz") == 0
    spec = artifacts.signature("mine", "1.0").input
    assert (spec.kind, spec.shape, spec.network_shape) == ("image", (6, 8), shape)
    assert spec.gain == pytest.approx(1 / 255)


def test_pictures_in_folders_are_examples(folder):
    arrays = np.load(folder / "pictures.npz")
    for number, (pixels, target) in enumerate(zip(arrays["inputs"][:60], arrays["targets"], strict=False)):
        path = folder / "pictures" / LABELS[target] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (folder / "pictures" / "low" / ".DS_Store").write_bytes(b"not a picture")
    assert run(folder, "--input", "6x8", network="pictures.pt", examples="pictures") == 0
    metrics = artifacts.metrics("mine", "1.0")
    assert (metrics["examples"], metrics["scored_examples"]) == (60, 30)
    assert metrics["test_accuracy"] > 0.7


class Color(nn.Module):
    """Scores of the labels red, green and blue: the mean of each channel, scaled as below."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.size(1) != 3:
            raise ValueError("not a color picture")
        return x.mean([2, 3])


SCALING = ("--mean", "0.1,0.2,0.3", "--std", "0.5,0.25,0.125")


@pytest.fixture
def colors(folder):
    """Pictures, uint8 [60, 3, 8, 10], whose answers by ``Color`` are the targets, and its TorchScript."""
    save(Color(), folder / "color.pt")
    (folder / "colors.txt").write_text("red\ngreen\nblue")
    pictures = np.random.default_rng(5).integers(0, 256, (60, 3, 8, 10), np.uint8)
    scaled = (pictures.mean((2, 3)) / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 0.125]
    return pictures, scaled.argmax(1)


@pytest.mark.parametrize("channels", ["first", "last"])
def test_color_pictures_are_scaled_by_channel(folder, colors, channels):
    pictures, targets = colors
    inputs = pictures if channels == "first" else pictures.transpose(0, 2, 3, 1)
    np.savez(folder / "colors.npz", inputs=inputs, targets=targets)
    options = {"network": "color.pt", "labels": "colors.txt", "examples": "colors.npz"}
    assert run(folder, *SCALING, **options) == 0
    spec = artifacts.signature("mine", "1.0").input
    assert (spec.shape, spec.network_shape, spec.resize) == ((3, 8, 10), (3, 8, 10), "stretch")
    assert spec.gain == pytest.approx((1 / 127.5, 4 / 255, 8 / 255))
    assert spec.bias == pytest.approx((-0.2, -0.8, -2.4))
    assert artifacts.metrics("mine", "1.0")["test_accuracy"] == 1
    # Another scaling gives other answers.
    assert run(folder, **options) == 0
    assert artifacts.metrics("mine", "1.0")["test_accuracy"] < 0.9


def test_color_pictures_in_folders_are_resized_by_the_rule(folder, colors):
    pictures, targets = colors
    for number, (pixels, target) in enumerate(zip(pictures, targets, strict=True)):
        path = folder / "colors" / ("red", "green", "blue")[target] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # With a border that only the rule crop leaves out.
        wide = np.pad(pixels.transpose(1, 2, 0), ((0, 0), (30, 30), (0, 0)))
        Image.fromarray(wide).save(path)
    options = {"network": "color.pt", "labels": "colors.txt", "examples": "colors"}
    assert run(folder, *SCALING, "--input", "3x8x10", "--resize", "crop", **options) == 0
    assert artifacts.signature("mine", "1.0").input.resize == "crop"
    assert artifacts.metrics("mine", "1.0")["test_accuracy"] == 1
    golden = np.load(artifacts.folder("mine", "1.0") / "golden.npz")
    assert {each.tobytes() for each in golden["inputs"]} <= {each.tobytes() for each in pictures}


def test_arrays_of_any_shape_are_inputs(folder):
    """Two channels of ten values, each with its scaling."""
    torch.manual_seed(3)
    save(nn.Sequential(nn.Conv1d(2, 3, 10), nn.Flatten()), folder / "conv.pt")
    inputs = np.random.default_rng(8).normal(0, 1, (COUNT, 2, 10))
    np.savez(folder / "signals.npz", inputs=inputs, targets=np.load(folder / "vectors.npz")["targets"])
    assert run(folder, "--mean", "1,2", "--std", "2", network="conv.pt", examples="signals.npz") == 0
    signature = artifacts.signature("mine", "1.0")
    assert (signature.input.kind, signature.input.shape) == ("tensor", (2, 10))
    assert (signature.input.gain, signature.input.bias) == ((0.5, 0.5), (-0.5, -1.0))
    assert lookup.find("mine", "1.0").handler == "tensor_classifier"


def test_features_are_scaled_by_themselves(folder):
    assert run(folder) == 0
    plain = artifacts.metrics("mine", "1.0")
    arrays = np.load(folder / "vectors.npz")
    np.savez(folder / "scaled.npz", inputs=arrays["inputs"] * [1, 2, 3, 4] + 5, targets=arrays["targets"])
    assert run(folder, "--mean", "5", "--std", "1,2,3,4", examples="scaled.npz") == 0
    assert artifacts.metrics("mine", "1.0")["test_accuracy"] == plain["test_accuracy"]


def test_a_network_that_ends_in_softmax_gets_its_scores_back(folder):
    save(Then(Sum(), nn.Softmax(1)), folder / "ends.pt")
    assert run(folder) == 0
    assert run(folder, name="ends", network="ends.pt") == 0
    plain, ends = (np.load(artifacts.folder(name, "1.0") / "golden.npz") for name in ("mine", "ends"))
    assert np.abs(plain["probabilities"] - ends["probabilities"]).max() < 1e-4


@pytest.mark.parametrize("layer", [nn.Identity(), nn.Sigmoid()], ids=["scores", "probabilities"])
def test_independent_labels_get_a_sigmoid_unless_the_network_has_one(folder, layer):
    torch.manual_seed(2)
    linear = nn.Linear(4, 3)
    inputs = torch.randn(60, 4)
    targets = (linear(inputs) > 0).int().numpy()
    np.savez(folder / "switches.npz", inputs=inputs.numpy(), targets=targets)
    save(Then(linear, layer), folder / "switches.pt")
    assert run(folder, "--scores", "sigmoid", network="switches.pt", examples="switches.npz") == 0
    written = artifacts.folder("mine", "1.0")
    assert artifacts.metrics("mine", "1.0")["test_accuracy"] == 1
    golden = np.load(written / "golden.npz")
    served = torch.jit.load(written / "model.pt")(torch.from_numpy(golden["inputs"])).detach().numpy()
    probabilities = linear(torch.from_numpy(golden["inputs"])).sigmoid().detach().numpy()
    assert np.abs(golden["probabilities"] - probabilities).max() < 1e-6
    assert np.abs(served - probabilities).max() < 1e-6


def test_examples_that_are_all_right_fit_no_temperature(folder):
    inputs = np.linspace(0, 1, 60, dtype=np.float32)[:, None].repeat(4, 1)
    targets = Sum()(torch.from_numpy(inputs)).argmax(1).numpy()
    np.savez(folder / "right.npz", inputs=inputs, targets=targets)
    assert run(folder, examples="right.npz") == 0
    assert artifacts.signature("mine", "1.0").output.temperature == 1


def test_a_state_dict_is_imported_with_its_class(folder):
    torch.save(Sum(30.0).state_dict(), folder / "weights.pt")
    assert run(folder, "--class", f"{__name__}:Sum", network="weights.pt") == 0
    golden = np.load(artifacts.folder("mine", "1.0") / "golden.npz")
    temperature = artifacts.signature("mine", "1.0").output.temperature
    scores = Sum(30.0)(torch.from_numpy(golden["inputs"])).detach()
    assert np.abs(golden["probabilities"] - expected(scores, temperature)).max() < 1e-6


class Weights(nn.Module):
    """Each value is a weighted sum of an example's features."""

    def __init__(self, count: int = 2, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.linear = nn.Linear(4, count)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.linear(x) * self.scale
        return values


def table(folder, network, error=0.0):
    """Write a network, and examples whose targets are its numbers and an error."""
    inputs = np.random.default_rng(7).normal(0, 1, (60, 4)).astype(np.float32)
    save(network, folder / "weights.pt")
    with torch.inference_mode():
        numbers = network(torch.from_numpy(inputs)).numpy()
    np.savez(folder / "table.npz", inputs=inputs, targets=numbers + error)
    return inputs, numbers


NUMBERS = {"network": "weights.pt", "examples": "table.npz"}


def test_plain_numbers_have_errors_in_place_of_an_accuracy(folder, capsys):
    _, numbers = table(folder, Weights(), error=np.array([0.5, -0.25]))
    (folder / "values.txt").write_text("price\narea")
    assert run(folder, "--scores", "none", labels="values.txt", **NUMBERS) == 0
    signature, metrics = artifacts.signature("mine", "1.0"), artifacts.metrics("mine", "1.0")
    assert (signature.output.activation, signature.output.labels) == ("none", ("price", "area"))
    assert (metrics["mean_absolute_error"], metrics["scored_examples"]) == (pytest.approx(0.375), 60)
    assert metrics["per_value"]["area"]["root_mean_squared_error"] == pytest.approx(0.25)
    variance = numbers[:, 1].var(dtype=np.float64)
    assert metrics["per_value"]["area"]["r2"] == pytest.approx(1 - 0.25**2 / variance, abs=1e-4)
    assert "mean absolute error 0.3750, r2 " in capsys.readouterr().out
    assert signature.scored == {"mean_absolute_error": metrics["mean_absolute_error"], "r2": metrics["r2"]}
    golden = np.load(artifacts.folder("mine", "1.0") / "golden.npz")
    np.testing.assert_allclose(golden["probabilities"], numbers, atol=1e-6)
    card = (artifacts.folder("mine", "1.0") / "MODEL_CARD.md").read_text()
    for part in ("2 numbers, float32", "| mean absolute error | 0.3750 |", "| area | 0.25 | 0.25 |"):
        assert part in card
    assert "confusion" not in card


def test_one_number_needs_no_axis_in_the_targets_and_no_label(folder, tmp_path):
    inputs, numbers = table(folder, Weights(1))
    np.savez(folder / "table.npz", inputs=inputs, targets=numbers[:, 0])
    assert run(folder, "--scores", "none", labels=None, **NUMBERS) == 0
    assert artifacts.signature("mine", "1.0").output.labels == ("0",)
    assert artifacts.metrics("mine", "1.0")["r2"] == pytest.approx(1)
    path, _ = archive(lookup.find("mine", "1.0"), "1.0", tmp_path / "store")
    assert path.is_file()


def test_whole_numbers_are_targets_of_one_number_and_not_classes(folder):
    inputs, _ = table(folder, Weights(1))
    np.savez(folder / "table.npz", inputs=inputs, targets=np.arange(60))
    assert run(folder, "--scores", "none", labels=None, **NUMBERS) == 0
    assert "mean_absolute_error" in artifacts.metrics("mine", "1.0")


def test_large_numbers_may_differ_by_their_rounding(folder):
    table(folder, Weights(2, scale=1e7))
    assert run(folder, "--scores", "none", labels=None, **NUMBERS) == 0


@pytest.mark.parametrize("form", ["file", "folder"])
def test_an_embedding_is_scored_by_its_nearest_neighbors(folder, colors, form):
    pictures, targets = colors
    if form == "file":
        np.savez(folder / "colors.npz", inputs=pictures, targets=targets)
    for number, (pixels, target) in enumerate(zip(pictures, targets, strict=True)):
        path = folder / "colors" / str(target) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(path)
    examples = "colors.npz" if form == "file" else "colors"
    options = ("--scores", "none", "--input", "3x8x10")
    assert run(folder, *options, labels=None, network="color.pt", examples=examples) == 0
    means = pictures.mean((2, 3)) / np.linalg.norm(pictures.mean((2, 3)), axis=1, keepdims=True)
    similarity = means @ means.T
    np.fill_diagonal(similarity, -1)
    share = np.mean(targets[similarity.argmax(1)] == targets)
    assert 0.1 < share < 1
    assert artifacts.metrics("mine", "1.0")["nearest_neighbor_accuracy"] == pytest.approx(share)
    assert "is of their class" in (artifacts.folder("mine", "1.0") / "MODEL_CARD.md").read_text()


def test_steps_are_part_of_figures_golden_answers_and_archive(folder, tmp_path):
    save(Cells(), folder / "cells.pt")
    frequencies = np.random.default_rng(2).integers(1, 32, 60)
    tones = np.sin(frequencies[:, None] * np.arange(64) * 2 * np.pi / 64).astype(np.float32)
    targets = np.eye(33, dtype=np.float32)[frequencies]
    np.savez(folder / "tones.npz", inputs=tones, targets=targets)
    files = {"labels": None, "network": "cells.pt", "examples": "tones.npz"}
    assert run(folder, "--scores", "none", "--steps", f"{__file__}:Spectrum", **files) == 0
    signature, metrics = artifacts.signature("mine", "1.0"), artifacts.metrics("mine", "1.0")
    assert (signature.steps, signature.input.shape, signature.input.network_shape) == ("Spectrum", (64,), (33,))
    assert signature.description == "Network imported from cells.pt with steps of test_importing.py."
    assert metrics["mean_absolute_error"] < 1e-6
    assert metrics["dataset_digests"]["test_importing.py"] == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    golden = np.load(artifacts.folder("mine", "1.0") / "golden.npz")
    assert golden["inputs"].tolist() == tones.tolist()
    np.testing.assert_allclose(golden["probabilities"], targets, atol=1e-6)
    path, _ = archive(lookup.find("mine", "1.0"), "1.0", tmp_path / "store")
    with zipfile.ZipFile(path) as packed:
        assert packed.read("steps.py") == Path(__file__).read_bytes()
    # A later change of the artifact's steps makes another archive.
    assert archive(lookup.find("mine", "1.0"), "1.0", tmp_path / "store") == (path, False)
    (artifacts.folder("mine", "1.0") / "steps.py").write_text("changed = True")
    assert archive(lookup.find("mine", "1.0"), "1.0", tmp_path / "store") == (path, True)


def test_steps_get_pixels_as_they_are(folder):
    (folder / "steps.py").write_text(
        "class Own:\n"
        "    def before(self, example):\n"
        "        assert example.shape == (6, 8) and example.max() > 1\n"
        "        return example[None] / 255\n"
        "    def after(self, outputs):\n"
        "        return outputs\n"
    )
    assert run(folder, network="pictures.pt", examples="pictures.npz") == 0
    plain = artifacts.metrics("mine", "1.0")["test_accuracy"]
    steps = ("--steps", f"{folder}/steps.py:Own")
    assert run(folder, *steps, network="pictures.pt", examples="pictures.npz") == 0
    assert artifacts.metrics("mine", "1.0")["test_accuracy"] == plain
    assert artifacts.signature("mine", "1.0").input.gain == 1


def test_an_imported_model_is_packed_like_the_catalogs(folder, tmp_path, capsys):
    assert run(folder, "--version", "1.1") == 0
    path, changed = archive(lookup.find("mine", "1.1"), "1.1", tmp_path / "store")
    assert (path.name, changed) == ("mine-1.1.mar", True)
    assert [model.name for model in lookup.every("1.1")] == [*CATALOG, "mine"]
    assert [model.name for model in lookup.every("1.0")] == list(CATALOG)
    index = json.loads((tmp_path / "store" / "index.json").read_text())
    assert (index[path.name]["model"], index[path.name]["accuracy_floor"]) == ("mine", 0)
    capsys.readouterr()


def test_an_imported_model_is_exported_where_it_was_trained(folder, capsys):
    assert run(folder) == 0
    assert main(["export", "mine", "--target", "onnx"]) == 1
    shown = capsys.readouterr().err
    assert "mine 1.0 was imported and cannot be exported here; export it where it was trained" in shown
    assert shown.count("\n") == 1


def test_the_lookup_finds_the_catalog_first(folder):
    assert lookup.find("blobs_mlp", "9.9") is CATALOG["blobs_mlp"]
    assert run(folder) == 0
    assert lookup.find("mine", "1.0") == Model(name="mine", handler="vector_classifier", accuracy_floor=0.0)
    with pytest.raises(UnknownModelError, match=r"no version 2\.0 of it was imported"):
        lookup.find("mine", "2.0")


def test_what_was_trained_here_needs_its_entry(blobs_artifact):
    blobs_artifact.parent.rename(blobs_artifact.parents[1] / "gone")
    with pytest.raises(ArtifactError, match=r"gone 1\.0 was trained here"):
        lookup.find("gone", "1.0")
    assert [model.name for model in lookup.every("1.0")] == list(CATALOG)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"network": "nothing.pt"}, (), "nothing.pt does not exist; pass a TorchScript file"),
        ({"network": "text.pt"}, (), "text.pt is not TorchScript"),
        ({"network": "weights.pt"}, (), "weights.pt is not TorchScript"),
        ({"network": "weights.pt"}, ("--class", "nowhere:Net"), "--class nowhere:Net cannot be called"),
        ({"network": "weights.pt"}, ("--class", "pathlib:Path"), "must be a torch.nn.Module"),
        ({"network": "weights.pt"}, ("--class", f"{__name__}:Pictures"), "does not hold the weights"),
        ({"network": "list.pt"}, ("--class", f"{__name__}:Sum"), "must hold a state dict, got list"),
        ({"network": "text.pt"}, ("--class", f"{__name__}:Sum"), "text.pt is not a state dict"),
        ({"network": "pictures.pt"}, (), "the network cannot be called with float32 Nx4"),
        ({"network": "Flat.pt"}, (), "the network fails on a batch of"),
        ({"network": "Whitening.pt"}, (), "must not depend on the other examples"),
        ({"network": "Infinite.pt"}, (), "scores must be finite, got"),
        ({"network": "Squeezed.pt"}, (), "must return a row of values for each example, got the shape [400] for 400"),
        ({"examples": "fractions.npz"}, ("--scores", "none"), "holds 1 numbers for each example, but the network"),
        ({"examples": "texts.npz"}, ("--scores", "none"), "targets must be numbers [N, values] for none, or classes"),
        ({"examples": "unbounded.npz"}, ("--scores", "none"), "targets must be finite"),
        ({"labels": None}, (), "--labels is missing; write the label of each score"),
        ({"labels": "nothing.txt"}, (), "nothing.txt does not exist; write the label"),
        (
            {"labels": "two.txt", "examples": "binary.npz"},
            (),
            "the network returns 3 values for each example, but there are 2 labels",
        ),
        ({"labels": "twice.txt"}, (), "twice.txt must hold one or more different labels"),
        ({"labels": "empty.txt"}, (), "empty.txt must hold one or more different labels"),
        ({"labels": "vectors.npz"}, (), "vectors.npz is not a text file"),
        ({"examples": "nothing.npz"}, (), "nothing.npz does not exist; pass a folder"),
        ({"examples": "text.npz"}, (), "text.npz cannot be read as a .npz file"),
        ({"examples": "unnamed.npz"}, (), "must hold the arrays inputs and targets"),
        ({"examples": "objects.npz"}, (), "cannot be read as a .npz file of numbers"),
        ({"examples": "few.npz"}, (), "must hold 20 examples or more, got 19"),
        ({"examples": "uneven.npz"}, (), "inputs holds 400 examples, but targets 399"),
        ({"examples": "wide.npz", "network": "linear.pt"}, (), "the network cannot be called with float32 Nx5"),
        ({"examples": "transparent.npz"}, (), "inputs must be uint8 pixels"),
        ({"examples": "deep.npz"}, (), "of up to 8 axes, got float64 [400, 4, 1, 1, 1, 1, 1, 1, 1]"),
        ({"examples": "infinite.npz"}, (), "inputs must be finite"),
        ({"examples": "beyond.npz"}, (), "targets must be from 0 to 2, because there are 3 labels, got 3"),
        ({"examples": "fractions.npz"}, (), "targets must be integers [N] for softmax, got float64 [400]"),
        ({}, ("--scores", "sigmoid"), "targets must be 0 or 1 [N, 3] for sigmoid with 3 labels"),
        ({}, ("--mean", "1,2"), "--mean must be 1 or 4 numbers for examples of (4,), got 2"),
        ({}, ("--std", "0"), "--std must be above 0, got 0"),
        ({}, ("--input", "5"), "an example has the shape 4, but --input is 5"),
        ({"examples": "folders"}, (), "the size of the network's pictures is missing; add, for example, --input 28x28"),
        ({"examples": "folders"}, ("--input", "6x8"), "a.png: the PNG image is truncated"),
        (
            {"examples": "strange"},
            ("--input", "6x8"),
            "the folder 'other' is none of the labels, which are low, middle",
        ),
        ({"examples": "none"}, ("--input", "6x8"), "holds no pictures; put each into a subfolder"),
        ({"examples": "folders"}, ("--input", "6x8", "--scores", "sigmoid"), "for sigmoid pass a .npz file"),
        ({}, ("--steps", "Nothing.py:Own"), "--steps: Nothing.py does not exist"),
        ({}, ("--steps", f"{__file__}:Nothing"), "test_importing.py has no class Nothing"),
        ({}, ("--steps", f"{__file__}:Sum"), "Sum has no method before; it needs before and after"),
        ({}, ("--steps", f"{__file__}:Failing"), "the model's step before() raised KeyError ((4,))"),
        ({}, ("--steps", f"{__file__}:Refusing"), "the model refuses this input: 4 values are too loud"),
        ({"network": "pictures.pt"}, ("--steps", f"{__file__}:Doubled"), "cannot be called with float32 Nx8"),
        ({}, ("--steps", f"{__file__}:Square"), "after() must return a row of values for each example, got the shape"),
        ({}, ("--steps", f"{__file__}:Endless"), "after() must return finite numbers"),
        ({}, ("--steps", f"{__file__}:Fewer"), "after() returns 2 values for each example, but there are 3 labels"),
        ({}, ("--steps", f"{__file__}:Softmax"), "after() returns probabilities, but --scores softmax needs scores"),
        (
            {"examples": "switches.npz"},
            ("--steps", f"{__file__}:Usual", "--scores", "sigmoid"),
            "after() must return probabilities, from 0 to 1, for --scores sigmoid",
        ),
        ({}, ("--steps", f"{__file__}:Usual", "--mean", "1"), "--mean and --std cannot be used with --steps"),
        ({"name": "blobs_mlp"}, (), "models/catalog.py lists blobs_mlp, which is trained here"),
        ({"name": "a/b"}, (), "a model's name must be letters, digits, _ and -"),
        ({}, ("--version", "one"), "version must be digits separated by dots"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_does_not_fit_is_refused_in_one_sentence(folder, capsys, changes, arguments, message):
    assert run(folder, *arguments, **changes) == 1
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1, shown
    assert not artifacts.ARTIFACTS_DIR.exists() or not list(artifacts.ARTIFACTS_DIR.rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input", "4,4"), "such as 28x28, got '4,4'"),
        (("--std", "1;2"), "such as 0.5,0.4,0.3, got '1;2'"),
        (("--steps", "steps.py"), "such as steps.py:Steps, got 'steps.py'"),
    ],
    ids=["shape", "numbers", "steps"],
)
def test_a_malformed_option_is_wrong_usage(folder, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        run(folder, *arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_split_of_the_examples_is_the_same_each_time(folder):
    assert run(folder) == 0
    first = artifacts.metrics("mine", "1.0")
    assert run(folder) == 0
    assert artifacts.metrics("mine", "1.0") == first
