"""The contracts of pyproject.toml, which `make lint` checks, refuse an import that goes up or sideways."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from serving.settings import ROOT

PACKAGES = ("tests", "bench", "serving", "models", "monitoring", "handlers", "client/fashion_client")
# Importing file, imported module, and the contract that the import breaks.
BAD_IMPORTS = (
    ("handlers/limits.py", "serving.settings", "layers of the repository"),
    ("handlers/inputs/npy.py", "models.catalog", "layers of the repository"),
    ("serving/store/live.py", "models.catalog", "layers of the repository"),
    ("models/catalog.py", "serving.settings", "layers of the repository"),
    ("bench/load.py", "tests.support.scenes", "layers of the repository"),
    ("client/fashion_client/errors.py", "handlers.problems", "client and monitoring import nothing of the project"),
    (
        "tests/support/scenes.py",
        "bench.load",
        "only the tests of bench and of the pages import bench",
    ),
    ("serving/store/index.py", "serving.gateway.config", "layers of serving"),
    ("serving/sidecars/frontdoor.py", "serving.rollout.steps", "layers of serving"),
    ("handlers/inputs/npy.py", "handlers.outputs.encoding", "layers of handlers"),
    ("handlers/transport/wire.py", "handlers.problems", "layers of handlers"),
)


def check(folder):
    """The exit code and the report of import-linter for the copy of the packages in ``folder``."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    ran = subprocess.run(
        [sys.executable, "-c", program, "--no-logo", "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": f"{folder}:{folder / 'client'}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert "Contracts: " in ran.stdout, ran.stdout + ran.stderr
    return ran.returncode, ran.stdout


def copy_packages(folder):
    shutil.copy(ROOT / "pyproject.toml", folder)
    ignored = shutil.ignore_patterns("__pycache__", ".venv*", "results")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of import-linter for a copy with every bad import added."""
    folder = tmp_path_factory.mktemp("layers")
    copy_packages(folder)
    for importer, imported, _ in BAD_IMPORTS:
        with (folder / importer).open("a") as file:
            file.write(f"\nimport {imported}\n")
    code, report = check(folder)
    assert code == 1
    return report


def test_the_repository_keeps_its_layers(tmp_path):
    copy_packages(tmp_path)
    code, report = check(tmp_path)
    assert code == 0, report


@pytest.mark.parametrize(("importer", "imported", "contract"), BAD_IMPORTS)
def test_an_import_against_the_layers_breaks_the_contract(report, importer, imported, contract):
    importing = importer.removeprefix("client/").removesuffix(".py").replace("/", ".")
    # Each broken contract's section starts with its name between lines; the part before lists the contracts.
    broken = report.split("Broken contracts")[1].split(f"\n{contract}\n---")[1]
    assert f"{importing} -> {imported} (" in broken.split("\n---")[0]
