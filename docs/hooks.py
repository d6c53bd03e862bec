"""What MkDocs does beyond its settings in ``mkdocs.yml``: pages from other folders, and links that hold in both places.

The pages are read in the repository and on the site. ``SOURCES`` adds those that lie outside of docs/,
and web/openapi.yaml becomes the reference of the HTTP API. Links are written for the repository, and changed here for
the site. A link to a source file becomes text. A link to nothing is a warning, which fails ``make docs``.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import yaml
from mkdocs.structure.files import File

log = logging.getLogger("mkdocs.hooks")

ROOT = Path(__file__).parent.parent
# Pages of the site that are made from files outside of docs/.
SOURCES = {
    "index.md": "README.md",
    "client.md": "client/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_OPENAPI = "web/openapi.yaml"
_HTTP_REFERENCE = "reference/http.md"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie elsewhere."""
    for uri, source in SOURCES.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text()))
    description = (ROOT / _OPENAPI).read_text()
    files.append(File.generated(config, "reference/openapi.yaml", content=description))
    files.append(File.generated(config, _HTTP_REFERENCE, content=http_reference(yaml.safe_load(description))))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Change a page's links for the site."""
    uri = page.file.src_uri
    if uri == _HTTP_REFERENCE:
        return markdown
    return _LINK.sub(lambda match: _site_link(match, uri, SOURCES.get(uri, f"docs/{uri}")), markdown)


def _site_link(match: re.Match[str], uri: str, source: str) -> str:
    mark, text, target, anchor = match.groups(default="")
    if not target or ":" in target:
        return match[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if not (ROOT / path).exists():
        log.warning("%s links to %s, which does not exist", source, path)
    pages = {file: page for page, file in SOURCES.items()}
    if path not in pages and not path.startswith("docs/"):
        return text
    site_path = pages.get(path, path.removeprefix("docs/"))
    return f"{mark}[{text}]({posixpath.relpath(site_path, posixpath.dirname(uri) or '.')}{anchor})"


def http_reference(openapi: dict[str, Any]) -> str:
    """An OpenAPI document as Markdown: operations by tag, then the schemas."""
    info = openapi["info"]
    lines = [
        "# HTTP API",
        "",
        info["description"],
        f"This page is made from [openapi.yaml](openapi.yaml), version {info['version']}.",
    ]
    for tag in openapi["tags"]:
        lines += ["", f"## {tag['name']}", "", tag.get("description", "")]
        for path, methods in openapi["paths"].items():
            shared = methods.get("parameters", [])
            for method, operation in methods.items():
                if method != "parameters" and tag["name"] in operation["tags"]:
                    lines += _operation(openapi, f"{method.upper()} {path}", operation, shared)
    lines += ["", "## Schemas", ""]
    for name, schema in openapi["components"]["schemas"].items():
        lines += [f"### {name}", "", "```yaml", yaml.safe_dump(schema, sort_keys=False, width=100), "```", ""]
    return "\n".join(lines)


def _operation(openapi: dict[str, Any], title: str, operation: dict[str, Any], shared: list[Any]) -> list[str]:
    lines = ["", f"### {title}", "", f"{operation['summary']}.", "", operation.get("description", ""), ""]
    parameters = [_resolved(openapi, each) for each in [*shared, *operation.get("parameters", [])]]
    lines += _table(
        ("parameter", "in", "meaning"),
        [(f"`{each['name']}`", each["in"], each.get("description", "")) for each in parameters],
    )
    body = _resolved(openapi, operation.get("requestBody", {}))
    lines += _table(
        ("request body", "schema"),
        [(f"`{kind}`", _schema(content)) for kind, content in body.get("content", {}).items()],
    )
    answers = {status: _resolved(openapi, each) for status, each in operation["responses"].items()}
    lines += _table(
        ("status", "meaning", "body"),
        [
            (status, each["description"], ", ".join(f"`{kind}`" for kind in each.get("content", {})))
            for status, each in answers.items()
        ],
    )
    return lines


def _resolved(openapi: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    while reference := value.get("$ref"):
        value = openapi
        for key in reference.removeprefix("#/").split("/"):
            value = value[key]
    return value


def _schema(content: dict[str, Any]) -> str:
    schema = content.get("schema", {})
    name: str = schema.get("$ref", "").rpartition("/")[2]
    return f"[{name}](#{name.lower()})" if name else schema.get("description", "")


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    cells = [titles, ("---",) * len(titles), *rows]
    return [
        "",
        *(f"| {' | '.join(' '.join(cell.replace('|', chr(92) + '|').split()) for cell in row)} |" for row in cells),
    ]
