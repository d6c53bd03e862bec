"""The README is correct: its code runs, and its tables match the program."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import fashion_client
import pytest
from fashion_client import FashionClient, FashionError, _base, command, errors

from tests.support.scripted_service import ScriptedService, png

README = (Path(__file__).parents[3] / "client" / "README.md").read_text()


@pytest.fixture(autouse=True)
def _at_the_service(service: ScriptedService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASHION_URL", service.url)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for name in ("shoe.png", "images/a.png", "images/b.jpg"):
        (tmp_path / name).write_bytes(png(9))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.splitlines() == [
        "Ankle boot 0.750",
        "(5000,) (5000, 10) T-shirt/top",
        "(28, 28)",
        "True ('fashion_convnet', 'sigmoid_net')",
        "Ankle boot",
    ]


def test_the_commands_run(capsys: pytest.CaptureFixture[str]) -> None:
    # The scripted service has only one of the two image models.
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ fashion ")]
    assert len(lines) == 8
    for line in lines:
        words = shlex.split(line.replace("fashion_mlp", "fashion_convnet"), comments=True)
        assert command.main(words[1:]) == 0, line
        assert capsys.readouterr().err == ""
    assert Path("labels.csv").exists()
    assert Path("heat.png").exists()


def test_the_exit_codes_are_those_of_the_help() -> None:
    codes = dict(re.findall(r"^  (\d+) +(.+)$", command.EPILOG, re.MULTILINE))
    assert len(codes) == 9
    assert dict(re.findall(r"^\| (\d+) \| (.+) \|$", README, re.MULTILINE)) == codes


def test_every_error_is_listed_with_its_retry_flag() -> None:
    kinds = {name for name in fashion_client.__all__ if name.endswith("Error")} - {"FashionError", "ProblemError"}
    rows = re.findall(r"^\| (`\w+Error`.*) \| (yes|no) \|$", README, re.MULTILINE)
    flags = {name: retry == "yes" for text, retry in rows for name in re.findall(r"`(\w+Error)`", text)}
    assert flags == {name: getattr(fashion_client, name).retry for name in kinds}
    assert all(issubclass(getattr(errors, name), FashionError) for name in kinds)


def test_every_argument_is_listed_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", README, re.MULTILINE))
    parameters = dict(inspect.signature(FashionClient).parameters)
    assert list(rows)[: len(parameters)] == list(parameters)
    for name in ("timeout", "retries", "in_flight"):
        assert float(rows[name]) == parameters[name].default
    assert rows["url"] == f"`{_base.URL_VARIABLE}`, else `{_base.DEFAULT_URL}`"
    assert rows["api_key"] == f"`{_base.KEY_VARIABLE}`, else none"
