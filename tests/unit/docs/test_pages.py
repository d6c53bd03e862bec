"""What the pages name exists: source files, tests, and make targets; and the site's pages are made from it."""

from __future__ import annotations

import importlib
import re
import sys
import types

import pytest
import yaml

from bench.render import pages
from serving.settings import ROOT
from tests.support import makefile

CODE = re.compile(r"`([^`\n]+)`")
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} - {
    "artifacts",
    "data",
    "keys",
    "logs",
    "model_store",
    "run",
    "wheelhouse",
}


@pytest.fixture(scope="module")
def test_names():
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in [path.name, *re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)]
    }


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_every_source_file_that_a_page_names_exists(page):
    named = [code.split()[0] for code in CODE.findall(page.read_text()) if code.strip()]
    paths = [path for path in named if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", path) and path.split("/")[0] in FOLDERS]
    # The README's reader writes that one.
    made = {"models/networks/fashion_linear.py"}
    assert [path for path in paths if path not in made and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_every_test_that_a_page_names_exists(page, test_names):
    named = {code for code in CODE.findall(page.read_text()) if re.fullmatch(r"test_\w+(\.py)?", code)}
    assert named <= test_names


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_every_target_that_a_page_names_exists(page):
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text())) <= makefile.targets()


@pytest.fixture
def hooks(monkeypatch):
    """The site's hooks, without MkDocs, which has an environment of its own."""
    for name in ("mkdocs", "mkdocs.structure", "mkdocs.structure.files"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["mkdocs.structure.files"], "File", object, raising=False)
    monkeypatch.delitem(sys.modules, "docs.hooks", raising=False)
    return importlib.import_module("docs.hooks")


def on_page(hooks, uri, markdown):
    page = types.SimpleNamespace(file=types.SimpleNamespace(src_uri=uri))
    return hooks.on_page_markdown(markdown, page=page)


@pytest.mark.parametrize(
    ("uri", "link", "changed"),
    [
        ("index.md", "[api](docs/api.md#limits)", "[api](api.md#limits)"),
        ("index.md", "![chart](docs/images/peers-latency.png)", "![chart](images/peers-latency.png)"),
        ("api.md", "[client](../client/README.md)", "[client](client.md)"),
        ("internals/transport.md", "[home](../../README.md)", "[home](../index.md)"),
        ("api.md", "[limits](../handlers/limits.py)", "limits"),
        ("api.md", "[site](https://example.org/a)", "[site](https://example.org/a)"),
        ("api.md", "[below](#limits)", "[below](#limits)"),
    ],
)
def test_a_link_leads_to_the_same_page_on_the_site(hooks, uri, link, changed):
    assert on_page(hooks, uri, link) == changed


def test_a_link_to_nothing_is_a_warning(hooks, caplog):
    on_page(hooks, "api.md", "[x](../handlers/nothing.py)")
    assert "docs/api.md links to handlers/nothing.py, which does not exist" in caplog.text


def test_the_http_reference_has_every_operation_and_schema(hooks):
    document = yaml.safe_load((ROOT / "web" / "openapi.yaml").read_text())
    reference = hooks.http_reference(document)
    for path, methods in document["paths"].items():
        for method in set(methods) - {"parameters"}:
            assert f"### {method.upper()} {path}\n" in reference
    for name in document["components"]["schemas"]:
        assert f"### {name}\n" in reference
