"""``docs/operations.md`` names each setting and port, with its default."""

from __future__ import annotations

import re

import pytest

from models.catalog import Serving
from serving import settings
from serving.settings import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()
VARIABLE = re.compile(r"\bFASHION_[A-Z_]+")
READ = {option.variable for _, option in settings.options()}
EXPLAINED = set(VARIABLE.findall((ROOT / ".env.example").read_text()))


@pytest.mark.parametrize("name", sorted(READ | EXPLAINED))
def test_every_variable_is_on_the_page(name):
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("port", settings.read({}).ports, ids=lambda port: port.name)
def test_every_port_is_on_the_page(port):
    assert re.search(rf"^\|[^|]*\b{port.number}\b", PAGE, re.MULTILINE)


def test_the_page_names_only_variables_that_are_read():
    elsewhere = {"FASHION_MNIST_DIR", "FASHION_URL", "FASHION_GRPC"}
    assert set(VARIABLE.findall(PAGE)) - elsewhere <= READ | EXPLAINED


# Except the placeholders of secrets, and the defaults that only the build has.
DEFAULTS = [
    (name, value)
    for name, value in re.findall(r"\$\{(FASHION_[A-Z_]+):-([^}]+)\}", (ROOT / "docker-compose.yml").read_text())
    if value not in ("/dev/null", "unknown")
]


@pytest.mark.parametrize(("name", "value"), sorted(set(DEFAULTS)))
def test_the_page_has_the_defaults_of_the_container(name, value):
    (default,) = re.findall(rf"^\| `{name}` \|[^|]*\|([^|]*)\|", PAGE, re.MULTILINE)
    assert re.search(rf"(?<![\w.]){re.escape(value)}(?![\w.])", default)


def test_the_page_has_the_default_batch_size_of_the_catalog():
    page = (ROOT / "docs" / "performance.md").read_text()
    assert re.findall(r"^\| (?:(\d+) \S )?(\d+) \(default\)", page, re.MULTILINE) == [
        (str(Serving().workers), str(Serving().batch_size))
    ]
