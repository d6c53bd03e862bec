"""A signature is read as it was written, or refused with the file and the field that is wrong."""

from __future__ import annotations

import json

import pytest

from handlers import signature
from handlers.signature import SignatureError
from tests.support.signatures import FASHION, VECTOR


@pytest.mark.parametrize("content", [FASHION, VECTOR], ids=["image", "vector"])
def test_it_is_read_as_it_was_written(tmp_path, content):
    path = tmp_path / "signature.json"
    path.write_text(content.to_json())
    assert signature.read(path) == content
    assert json.loads(path.read_text())["format"] == signature.FORMAT


@pytest.mark.parametrize(
    ("part", "field", "value", "told"),
    [
        ("input", "kind", "sound", "input.kind"),
        ("input", "shape", [28], "input.shape"),
        ("input", "shape", [28, 0], "input.shape"),
        ("input", "network_shape", [783], "input.network_shape"),
        ("output", "activation", "tanh", "output.activation"),
        ("output", "labels", [], "output.labels"),
        ("output", "labels", ["a", "a"], "output.labels"),
        ("output", "temperature", 0, "output.temperature"),
        ("output", "temperature", float("nan"), "output.temperature"),
        ("input", "shape", None, "not a signature"),
        ("output", "labels", 3, "not a signature"),
    ],
)
def test_what_contradicts_itself_is_named(tmp_path, part, field, value, told):
    raw = json.loads(FASHION.to_json())
    raw[part][field] = value
    path = tmp_path / "signature.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(SignatureError, match=told) as caught:
        signature.read(path)
    assert str(path) in str(caught.value)


def test_padding_is_for_images(tmp_path):
    raw = json.loads(VECTOR.to_json())
    raw["input"]["padding"] = 2
    (tmp_path / "signature.json").write_text(json.dumps(raw))
    with pytest.raises(SignatureError, match="padding needs an image of two axes"):
        signature.read(tmp_path / "signature.json")


def written(tmp_path, change):
    """The file of FASHION's signature after ``change`` of its members."""
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
    ids=["older, without a format", "a new member", "new members of its parts", "without members that have a default"],
)
def test_older_and_newer_files_of_the_format_are_read(tmp_path, change):
    assert signature.read(written(tmp_path, change)) == FASHION


@pytest.mark.parametrize("number", [2, "1", None])
def test_another_format_is_refused_in_one_sentence(tmp_path, number):
    path = written(tmp_path, lambda raw: raw.update(format=number, input="of another form"))
    with pytest.raises(SignatureError) as caught:
        signature.read(path)
    assert str(caught.value) == f"{path} has format {number!r}, this code reads 1; use the release that wrote it"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"input": {}}'], ids=["empty", "cut", "a list", "without fields"])
def test_what_is_none_is_told(tmp_path, content):
    (tmp_path / "signature.json").write_text(content)
    with pytest.raises(SignatureError, match="not a signature"):
        signature.read(tmp_path / "signature.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SignatureError, match=r"nosuch\.json: No such file"):
        signature.read(tmp_path / "nosuch.json")
