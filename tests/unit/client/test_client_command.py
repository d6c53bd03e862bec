"""The command line: output and exit codes."""

from __future__ import annotations

import csv
import io
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fashion_client import _base, command
from PIL import Image

from tests.support.scripted_service import Drop, Reply, ScriptedService, Stall, png, problem

CLIENT = Path(__file__).parents[3] / "client"


pytestmark = pytest.mark.usefixtures("quick_backoff")


@pytest.fixture(autouse=True)
def _at_the_service(service: ScriptedService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASHION_URL", service.url)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shoe(tmp_path: Path) -> str:
    (tmp_path / "shoe.png").write_bytes(png(9))
    return "shoe.png"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder of three images with suffixes in both cases, another file and a subfolder."""
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    for name, content in {"b.PNG": png(1), "a.png": png(8), "c.jpg": png(9), "notes.txt": b"not an image"}.items():
        (images / name).write_bytes(content)
    (images / "sub" / "d.png").write_bytes(png(2))
    return "images"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = command.main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_bars(capsys: pytest.CaptureFixture[str], shoe: str) -> None:
    code, out, err = run(capsys, "predict", shoe)
    assert (code, err) == (0, "")
    title, first, *others = out.splitlines()
    assert title == "Ankle boot"
    assert first.startswith("Ankle boot")
    assert first.rstrip().endswith("75.0%")
    assert len(others) == 9
    bars = [line.count("━") + line.count("╸") for line in (first, others[0])]
    assert bars[0] == 30
    assert 1 <= bars[1] <= 2


def test_top_k(capsys: pytest.CaptureFixture[str], shoe: str, service: ScriptedService) -> None:
    code, out, _ = run(capsys, "predict", shoe, "--top-k", "3")
    assert code == 0
    assert len(out.splitlines()) == 1 + 3
    assert service.seen[0].query == {"top_k": ["3"]}


def test_labels_are_not_read_as_markup(capsys: pytest.CaptureFixture[str], shoe: str, service: ScriptedService) -> None:
    service.script += [Reply(200, b'{"class": 0, "label": "[red]x", "probabilities": {"[red]x": 1.0}}')]
    _, out, _ = run(capsys, "predict", shoe)
    assert out.startswith("[red]x\n[red]x ")


def test_json_of_one(capsys: pytest.CaptureFixture[str], shoe: str) -> None:
    code, out, _ = run(capsys, "predict", shoe, "--json")
    record = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    assert (record["file"], record["class"], record["label"]) == ("shoe.png", 9, "Ankle boot")
    assert record["probability"] == record["probabilities"]["Ankle boot"] == pytest.approx(0.75)


def test_the_model_option_selects_the_model(capsys: pytest.CaptureFixture[str], shoe: str) -> None:
    code, out, err = run(capsys, "predict", shoe, "--model", "none")
    assert (code, out, err) == (4, "", "fashion: Not found: there is no model 'none' (HTTP 404)\n")


@pytest.mark.parametrize("how", ["folder", "glob", "files", "absolute glob"])
def test_csv_of_many(capsys: pytest.CaptureFixture[str], folder: str, tmp_path: Path, how: str) -> None:
    arguments = {
        "folder": [folder],
        "glob": ["images/[abc].*"],
        "files": ["images/a.png", "images/b.PNG", "images/c.jpg"],
        "absolute glob": [f"{tmp_path}/images/[abc].*"],
    }
    code, out, err = run(capsys, "predict", *arguments[how])
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(Path(row["file"]).name, row["class"], row["label"], row["probability"], row["error"]) for row in rows] == [
        ("a.png", "8", "Bag", "0.750000", ""),
        ("b.PNG", "1", "Trouser", "0.750000", ""),
        ("c.jpg", "9", "Ankle boot", "0.750000", ""),
    ]


def test_a_folder_of_photos(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    for name in ("d.HEIC", "e.avif", "f.tiff"):
        Path(folder, name).write_bytes(png(3))
    _, out, _ = run(capsys, "predict", folder)
    files = [row["file"] for row in csv.DictReader(io.StringIO(out))]
    assert files[3:] == ["images/d.HEIC", "images/e.avif", "images/f.tiff"]


@pytest.mark.usefixtures("folder")
def test_a_glob_of_subfolders(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "predict", "images/**/*.png")
    assert [row["file"] for row in csv.DictReader(io.StringIO(out))] == ["images/a.png", "images/sub/d.png"]


def test_csv_with_more_than_one_label(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    _, out, _ = run(capsys, "predict", folder, "--top-k", "2")
    header, first, *_ = out.splitlines()
    assert header == "file,class,label,probability,label_2,probability_2,error"
    assert first == "images/a.png,8,Bag,0.750000,T-shirt/top,0.027778,"


def test_json_lines_of_many(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    code, out, _ = run(capsys, "predict", folder, "images/notes.txt", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [each["file"] for each in records] == ["images/a.png", "images/b.PNG", "images/c.jpg", "images/notes.txt"]
    assert records[0]["label"] == "Bag"
    assert records[3] == {"file": "images/notes.txt", "error": records[3]["error"]}
    assert records[3]["error"].endswith("not an image (HTTP 422)")


@pytest.mark.usefixtures("folder")
def test_some_images_without_a_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "predict", "images/a.png", "images/notes.txt", "gone.png", "images/b.PNG")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1
    assert err == "fashion: 2 of 4 images have no prediction\n"
    assert [row["label"] for row in rows] == ["Bag", "", "", "Trouser"]
    assert rows[1]["error"].endswith("not an image (HTTP 422)")
    assert rows[2]["error"] == "gone.png: No such file or directory"


def test_output_to_a_file(capsys: pytest.CaptureFixture[str], folder: str, shoe: str, tmp_path: Path) -> None:
    assert run(capsys, "predict", folder, "-o", "out.csv") == (0, "", "")
    assert (tmp_path / "out.csv").read_bytes().count(b"\n") == 4
    assert run(capsys, "predict", shoe, "-o", "one.csv") == (0, "", "")
    assert (tmp_path / "one.csv").read_text() == "file,class,label,probability,error\nshoe.png,9,Ankle boot,0.750000,\n"


def test_progress_on_a_terminal(
    capsys: pytest.CaptureFixture[str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, out, err = run(capsys, "predict", folder)
    assert code == 0
    assert len(out.splitlines()) == 4
    assert "3/3" in err


def test_explain(capsys: pytest.CaptureFixture[str], shoe: str, tmp_path: Path, service: ScriptedService) -> None:
    assert run(capsys, "explain", shoe, "-o", "heat.png", "--target", "Bag") == (0, "", "")
    with Image.open(tmp_path / "heat.png") as picture:
        assert picture.format == "PNG"
    assert service.seen[0].query == {"target": ["Bag"]}


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "models")
    assert code == 0
    header, *rows = [" ".join(line.split()) for line in out.splitlines()]
    assert header == "Model Versions Inputs Outputs"
    assert rows[0] == "fashion_convnet 1.0, 1.1 image UINT8 [N, 28, 28] probabilities FP32 [N, 10]"
    assert rows[1] == "sigmoid_net 1.0 features FP32 [N, 3] probabilities FP32 [N, 2]"


def test_models_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "models", "--json")
    first, second = (json.loads(line) for line in out.splitlines())
    assert code == 0
    assert first["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28]}]
    assert second["name"] == "sigmoid_net"


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        ([problem(422, "Wrong", "too odd")], command.EXIT_REFUSED, "Wrong: too odd (HTTP 422)"),
        ([problem(401, "No key", "send one")], command.EXIT_REFUSED, "No key: send one (HTTP 401)"),
        ([problem(503, "Busy", "queue full")] * 4, command.EXIT_BUSY, "Busy: queue full (HTTP 503)"),
        ([problem(429, "Busy", "slow down")] * 4, command.EXIT_BUSY, "Busy: slow down (HTTP 429)"),
        ([problem(500, "Fault", "its own")], command.EXIT_FAILED, "Fault: its own (HTTP 500)"),
        ([Reply(200, b"hello")], command.EXIT_FAILED, "is not JSON"),
        ([Drop()] * 4, command.EXIT_NO_ANSWER, "no answer from"),
    ],
    ids=["422", "401", "503", "429", "500", "no JSON", "no answer"],
)
def test_exit_codes(
    capsys: pytest.CaptureFixture[str], shoe: str, service: ScriptedService, script: list[Any], code: int, text: str
) -> None:
    service.script += script
    actual, out, err = run(capsys, "predict", shoe)
    assert (actual, out) == (code, "")
    assert err.startswith("fashion: ")
    assert text in err
    assert err.count("\n") == 1
    assert len(service.seen) == len(script)


@pytest.mark.parametrize(
    "reply",
    [problem(401, "No key", "…"), problem(404, "No model", "…"), Reply(200, b"hello")],
    ids=["401", "404", "other"],
)
def test_an_error_that_every_image_would_cause_ends_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, service: ScriptedService, reply: Reply
) -> None:
    for number in range(100):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    service.script += [reply] * 100
    code, out, err = run(capsys, "predict", ".")
    assert code in (command.EXIT_REFUSED, command.EXIT_FAILED)
    assert out.count("\n") == 1
    assert err.count("\n") == 1
    assert len(service.seen) < 20


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["predict", "gone.png"], "gone.png: No such file or directory"),
        (["predict", "*.webp"], "*.webp: no file matches"),
        (["predict", "."], ".: the folder has no images (such as .jpg, .png or .webp)"),
        (["explain", "gone.png", "-o", "x.png"], "gone.png: No such file or directory"),
        (["models", "--url", "nowhere"], "url must be an address such as http://127.0.0.1:8000, got 'nowhere'"),
    ],
    ids=["file", "glob", "folder", "explain", "address"],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], text: str) -> None:
    assert run(capsys, *arguments) == (2, "", f"fashion: {text}\n")


@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_an_output_that_cannot_be_written(capsys: pytest.CaptureFixture[str], shoe: str, verb: str) -> None:
    code, out, err = run(capsys, verb, shoe, "-o", "no/such/folder")
    assert (code, out, err) == (2, "", "fashion: no/such/folder: No such file or directory\n")


@pytest.mark.parametrize(
    "arguments",
    ["", "guess", "predict", "predict x.png --top-k 0", "predict x.png --top-k x", "explain x.png"],
)
def test_usage_errors_are_argparse_s(capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(arguments.split())
    assert caught.value.code == command.EXIT_USAGE
    assert "usage: fashion" in capsys.readouterr().err


def test_help_lists_every_exit_code_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    codes = [value for name, value in vars(command).items() if name.startswith("EXIT_")]
    assert len(codes) == 8
    for code in (0, *codes):
        assert f"\n  {code:<4} " in out
    assert _base.URL_VARIABLE in out
    assert _base.KEY_VARIABLE in out


FASHION = [sys.executable, "-m", "fashion_client.command"]


@pytest.fixture
def _from_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(CLIENT))


@pytest.mark.usefixtures("_from_its_folder")
def test_as_a_process(service: ScriptedService, shoe: str) -> None:
    line = [*FASHION, "predict", shoe, "--json"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["label"] == "Ankle boot"
    service.script += [problem(422, "Wrong", "too odd")]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (4, "", "fashion: Wrong: too odd (HTTP 422)\n")


@pytest.mark.usefixtures("_from_its_folder")
def test_interruption(service: ScriptedService, shoe: str) -> None:
    service.script += [Stall()]
    line = [*FASHION, "predict", shoe]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not service.seen and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "fashion: interrupted\n")
    assert process.returncode == command.EXIT_INTERRUPTED


@pytest.mark.usefixtures("_from_its_folder", "folder")
def test_a_closed_pipe_ends_the_run_quietly(tmp_path: Path) -> None:
    # More rows than fit into a pipe's buffer.
    for number in range(2000):
        (tmp_path / "images" / f"{number}.png").symlink_to(tmp_path / "images" / "a.png")
    line = f"{shlex.join(FASHION)} predict images | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert result.stderr == ""
    assert result.stdout.splitlines()[1] == str(command.EXIT_BROKEN_PIPE)
