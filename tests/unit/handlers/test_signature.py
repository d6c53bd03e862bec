"""A signature is read as it was written, or refused with the file, the field and its value."""

from __future__ import annotations

import json

import pytest

from handlers import signature
from handlers.signature import SignatureError
from tests.support.signatures import COLOR, FASHION, VECTOR


@pytest.mark.parametrize("content", [FASHION, COLOR, VECTOR], ids=["image", "color", "vector"])
def test_a_signature_is_read_as_it_was_written(tmp_path, content):
    path = tmp_path / "signature.json"
    path.write_text(content.to_json())
    assert signature.read(path) == content
    assert json.loads(path.read_text())["format"] == signature.FORMAT


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("input", "kind", "sound", ": input.kind must be image or vector or tensor, got 'sound'"),
        ("input", "shape", [28], ": input.shape must be height and width, or 3, height and width, got (28,)"),
        ("input", "shape", [28, 0], ": input.shape must be height and width, or 3, height and width, got (28, 0)"),
        (
            "input",
            "shape",
            [4, 7, 28],
            ": input.shape must be height and width, or 3, height and width, got (4, 7, 28)",
        ),
        (
            "input",
            "gain",
            [1.0, 2.0],
            ": input.gain must be a number, or one for each channel or feature, got (1.0, 2.0)",
        ),
        ("input", "resize", "blur", ": input.resize must be convert or stretch or fit or crop, got 'blur'"),
        ("input", "network_shape", [783], ": input.network_shape must be 784 values in all, got (783,)"),
        ("output", "activation", "tanh", ": output.activation must be softmax or sigmoid or none, got 'tanh'"),
        ("output", "labels", [], ": output.labels must be one or more distinct names, got ()"),
        ("output", "labels", ["a", "a"], ": output.labels must be one or more distinct names, got ('a', 'a')"),
        ("output", "temperature", 0, ": output.temperature must be above 0, got 0"),
        ("output", "temperature", float("nan"), ": output.temperature must be above 0, got nan"),
        ("input", "shape", None, " cannot be read as a signature: TypeError"),
        ("output", "labels", 3, " cannot be read as a signature: TypeError"),
    ],
)
def test_an_inconsistent_field_is_named(tmp_path, part, field, value, message):
    raw = json.loads(FASHION.to_json())
    raw[part][field] = value
    path = tmp_path / "signature.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(SignatureError) as caught:
        signature.read(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_padding_needs_an_image(tmp_path):
    raw = json.loads(VECTOR.to_json())
    raw["input"]["padding"] = 2
    (tmp_path / "signature.json").write_text(json.dumps(raw))
    with pytest.raises(SignatureError, match="padding needs an image"):
        signature.read(tmp_path / "signature.json")


def written(tmp_path, change):
    """The file of FASHION's signature, after ``change`` has changed its members."""
    raw = json.loads(FASHION.to_json())
    change(raw)
    (tmp_path / "signature.json").write_text(json.dumps(raw))
    return tmp_path / "signature.json"


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("format"),
        lambda raw: raw.update(license="MIT"),
        lambda raw: (raw["input"].update(color="red"), raw["output"].update(unit="1")),
        lambda raw: (
            raw.pop("scored"),
            raw.pop("trained_on"),
            raw["input"].pop("bias"),
            raw["output"].pop("temperature"),
        ),
    ],
    ids=["without a format", "a new member", "new members of its parts", "without members that have a default"],
)
def test_older_and_newer_files_of_the_format_are_read(tmp_path, change):
    assert signature.read(written(tmp_path, change)) == FASHION


@pytest.mark.parametrize("number", [2, "1", None])
def test_another_format_is_refused_in_one_sentence(tmp_path, number):
    path = written(tmp_path, lambda raw: raw.update(format=number, input="in another format"))
    with pytest.raises(SignatureError) as caught:
        signature.read(path)
    assert str(caught.value) == f"{path}: format must be 1, got {number!r}; use the release that wrote the file"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"input": {}}'], ids=["empty", "cut", "a list", "without fields"])
def test_a_file_that_is_not_a_signature_is_refused(tmp_path, content):
    (tmp_path / "signature.json").write_text(content)
    with pytest.raises(SignatureError, match="cannot be read as a signature"):
        signature.read(tmp_path / "signature.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SignatureError, match=r"nosuch\.json: No such file"):
        signature.read(tmp_path / "nosuch.json")
