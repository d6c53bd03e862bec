"""``docs/operations.md`` names every setting and every port."""

from __future__ import annotations

import re

import pytest

from serving import __main__ as command
from serving import settings
from serving.settings import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()
VARIABLE = re.compile(r"\bFASHION_[A-Z_]+")
READ = set(VARIABLE.findall(command._variables()))
EXPLAINED = set(VARIABLE.findall((ROOT / ".env.example").read_text()))


@pytest.mark.parametrize("name", sorted(READ | EXPLAINED))
def test_every_variable_is_on_the_page(name):
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("port", settings.read({}).ports, ids=lambda port: port.name)
def test_every_port_is_on_the_page(port):
    assert re.search(rf"^\|[^|]*\b{port.number}\b", PAGE, re.MULTILINE)


def test_the_page_names_no_variable_that_is_not_read():
    elsewhere = {"FASHION_MNIST_DIR", "FASHION_URL", "FASHION_GRPC"}
    assert set(VARIABLE.findall(PAGE)) - elsewhere <= READ | EXPLAINED
