"""Figures are rendered into the marks of the pages, and a page with other figures is reported."""

from __future__ import annotations

import json

import pytest

from bench import render, reporting


@pytest.fixture
def page(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    content = {"machine": {}, "results": {"both models": {"seconds": [1.0, 2.25]}}}
    (tmp_path / "results" / "start.json").write_text(json.dumps(content))
    monkeypatch.setattr(reporting, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(render, "ROOT", tmp_path)
    path = tmp_path / "README.md"
    path.write_text("It takes <!-- figures: value .1f start/both models/seconds/1 -->9<!-- /figures --> s.\n")
    return path


def test_a_figure_is_replaced_and_the_text_around_it_is_kept(page):
    assert render.main([]) == 0
    assert page.read_text() == (
        "It takes <!-- figures: value .1f start/both models/seconds/1 -->2.2<!-- /figures --> s.\n"
    )


def test_a_page_with_an_old_figure_fails_the_check_and_is_not_changed(page, capsys):
    before = page.read_text()
    assert render.main(["--check"]) == 1
    assert "README.md has other figures" in capsys.readouterr().err
    assert page.read_text() == before
    render.main([])
    assert render.main(["--check"]) == 0


@pytest.mark.parametrize("argument", ["--chek", "check", "README.md"])
def test_another_argument_is_an_error_and_changes_nothing(page, argument):
    before = page.read_text()
    with pytest.raises(SystemExit):
        render.main([argument])
    assert page.read_text() == before


def test_a_table_gets_its_own_lines(monkeypatch):
    monkeypatch.setitem(render.FIGURES, "table", lambda: "| a |\n| --- |")
    assert render.rendered("<!-- figures: table --><!-- /figures -->") == (
        "<!-- figures: table -->\n\n| a |\n| --- |\n\n<!-- /figures -->"
    )


@pytest.mark.parametrize("figure", ["nothing", "value .1f start/one model", "value .1f absent/x", "value .1f", "peers"])
def test_a_missing_figure_is_reported(page, figure, capsys):
    page.write_text(f"<!-- figures: {figure} -->1<!-- /figures -->")
    assert render.main([]) == 1
    assert f"README.md: no figure '{figure}'" in capsys.readouterr().err


@pytest.mark.parametrize("path", render.pages(), ids=lambda path: path.name)
def test_every_mark_is_closed_and_none_starts_a_line_of_a_paragraph(path):
    text = path.read_text()
    assert text.count("<!-- figures: ") == text.count("<!-- /figures -->") == len(render._MARK.findall(text))
    # Markdown reads such a line as HTML.
    lines = [line.strip() for line in text.splitlines()]
    assert [line for line in lines if line.startswith("<!-- figures: ") and not line.endswith("-->")] == []
