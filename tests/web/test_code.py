"""The code that repeats a request runs unchanged, beside the saved picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from playwright._impl._driver import compute_driver_executable
from playwright.sync_api import expect

from serving.settings import ROOT
from tests.support.playground import SAMPLES, photograph, pixels

LANGUAGES = ("curl", "Python", "requests", "JavaScript")


def _command(language: str, code: str) -> list[str]:
    match language:
        case "curl":
            return ["bash", "-euc", code]
        case "JavaScript":
            # Playwright contains Node.js.
            return [compute_driver_executable()[0], "--input-type=module", "--eval", code]
    return [sys.executable, "-c", code]


def _run(playground, language: str, folder: Path, **environment: str) -> str:
    """Choose a language on the page, run the code that it shows, and return the output."""
    playground.page.get_by_role("tab", name=language, exact=True).click()
    code = playground.page.locator("#code-text").inner_text()
    process = subprocess.run(
        _command(language, code),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "client"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, f"{code}\n\n{process.stderr}"
    return process.stdout


def _show_code(playground, model: str) -> None:
    playground.page.get_by_role("button", name=f"Show the code for {model}").click()
    expect(playground.page.get_by_role("combobox", name="Model")).to_have_value(model)
    expect(playground.page.locator("#code")).to_be_focused()


@pytest.mark.parametrize("language", LANGUAGES)
def test_saved_picture_gets_the_same_answer(playground, tmp_path, language):
    playground.choose_sample("Coat")
    _show_code(playground, "fashion_mlp")
    with playground.page.expect_download() as download:
        playground.page.get_by_role("link", name="Save the picture").click()
    download.value.save_as(tmp_path / download.value.suggested_filename)
    assert (tmp_path / "coat.png").read_bytes() == (SAMPLES / "coat.png").read_bytes()
    printed = _run(playground, language, tmp_path)
    answer = playground.prediction("fashion_mlp", (SAMPLES / "coat.png").read_bytes())
    assert answer["label"] in printed
    if language == "curl":
        assert json.loads(printed)["probabilities"] == answer["probabilities"]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("content_type", ["image/jpeg", ""], ids=["typed", "untyped"])
def test_file_with_an_awkward_name(playground, tmp_path, language, content_type):
    name = 'it\'s "my" $HOME & tröuser.jpg'
    playground.choose_file(name, photograph(), content_type)
    (tmp_path / name).write_bytes(photograph())
    _show_code(playground, "fashion_convnet")
    expect(playground.page.get_by_role("link", name="Save the picture")).to_be_hidden()
    assert playground.verdict("fashion_convnet") in _run(playground, language, tmp_path)


@pytest.mark.parametrize("language", LANGUAGES)
def test_code_repeats_the_explanation_too(playground, tmp_path, language):
    card = playground.card("fashion_mlp")
    card.get_by_role("button", name="Explain the answer of fashion_mlp").click()
    expect(card.locator(".explain-button img")).to_be_visible()
    _show_code(playground, "fashion_mlp")
    (tmp_path / "t-shirt-top.png").write_bytes((SAMPLES / "t-shirt-top.png").read_bytes())
    _run(playground, language, tmp_path)
    assert pixels((tmp_path / "heat-map.png").read_bytes()).shape == (280, 280, 3)


@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_get_the_same_answer(playground, tmp_path, language):
    _show_code(playground, "blobs_mlp")
    for number, value in enumerate((0.5, -1.5, 3, 2), 1):
        playground.card("blobs_mlp").get_by_label(f"Feature {number}").fill(str(value))
    printed = _run(playground, language, tmp_path)
    answer = requests.post(f"{playground.site}/predictions/blobs_mlp", json=[0.5, -1.5, 3, 2], timeout=30).json()
    assert answer["label"] in printed


def test_code_is_copied(playground):
    page = playground.page
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#code-text").inner_text()


def test_code_is_selected_if_the_clipboard_is_forbidden(playground):
    page = playground.page
    playground.forbid("clipboard-write")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#announcement")).to_contain_text("The code is selected")
    assert page.evaluate("getSelection().toString()").strip() == page.locator("#code-text").inner_text().strip()
