"""``requirements/locked/`` has the pins of ``requirements/`` and hashes for every package; targets install from it."""

from __future__ import annotations

import re
import sys
from collections import Counter

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements import lock
from serving.settings import ROOT

FILES = ["torch", "cuda", *lock.names()]
# Those of .venv, and docs: constraints.txt has their indirect dependencies.
CONSTRAINED = ["service", "models", "dev", "export", "lint", "web", "containers", "docs"]


def _environment(name):
    """The names of the locked files that pip reads to install one of them."""
    parts = [*lock.included(name), name]
    return ["torch", "cuda", *parts] if "service" in parts else parts


def _locked(name):
    """The requirements that pip reads to install a locked file."""
    return [Requirement(pin) for part in _environment(name) for pin in lock.pins(part)]


def _versions(requirements):
    """The specifiers of each package; a package has several if they depend on the Python."""
    versions: dict[str, set[str]] = {}
    for requirement in requirements:
        versions.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    return versions


def _pinned(name):
    """The requirements of a file in ``requirements/`` and of the files that it includes, without its constraints."""
    for part in (*lock.included(name), name):
        for line in (lock.REQUIREMENTS / f"{part}.txt").read_text().splitlines():
            if line and not line.startswith(("#", "-")):
                yield Requirement(line)


def test_every_file_is_locked():
    assert {path.stem for path in lock.LOCKED.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_package_has_one_version_and_hashes(name):
    text = (lock.LOCKED / f"{name}.txt").read_text()
    for entry in re.sub(r" \\\n +", " ", text).splitlines():
        if not entry.startswith(("#", "-r ")):
            pin, *hashes = entry.split(" --hash=")
            assert re.fullmatch(r"==[^,*]+", str(Requirement(pin).specifier)), pin
            assert hashes, pin
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), pin
            assert len(set(hashes)) == len(hashes), pin


@pytest.mark.parametrize("name", lock.names())
def test_a_locked_file_includes_what_its_source_does(name):
    text = (lock.LOCKED / f"{name}.txt").read_text()
    assert re.findall(r"^-r (\w+)\.txt$", text, re.MULTILINE) == lock.included(name)[-1:]


@pytest.mark.parametrize("name", lock.names())
def test_the_locked_versions_are_the_pinned_ones(name):
    versions = _versions(_locked(name))
    for requirement in _pinned(name):
        locked = versions.get(canonicalize_name(requirement.name), set())
        assert locked if not requirement.specifier else str(requirement.specifier) in locked, (
            f"{requirement}: run make lock"
        )


@pytest.mark.parametrize("name", CONSTRAINED)
def test_the_locked_versions_are_those_of_the_constraints(name):
    versions, constraints = _versions(_locked(name)), _versions(_pinned("constraints"))
    for package in versions.keys() & constraints.keys():
        assert versions[package] <= constraints[package], f"{package}: run make lock"


@pytest.mark.parametrize("name", lock.names())
def test_a_machine_gets_each_package_once(name):
    requirements = _locked(name)
    for machine in lock.machines("3.11.5" if name == "docs" else "3.11"):
        needed = [each.name for each in requirements if not each.marker or each.marker.evaluate(machine.markers)]
        assert max(Counter(needed).values(), default=1) == 1, (machine.markers, Counter(needed).most_common(1))


def _wheel(filename):
    return {"url": f"a/b/{filename.replace('+', '%2B')}", "hashes": {"sha256": filename}}


def test_wheels_that_a_supported_machine_installs_are_locked():
    used = [
        "a-1-cp310-cp310-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_28_aarch64.whl",
        "a-1-cp313-none-macosx_14_0_arm64.whl",
        "a-1-cp39-abi3-macosx_10_9_universal2.whl",
        "a-1+local-py2.py3-none-any.whl",
    ]
    unused = [
        "a-1-cp39-cp39-manylinux_2_17_x86_64.whl",
        "a-1-cp313-cp313t-manylinux_2_17_x86_64.whl",
        "a-1-cp314-cp314-manylinux_2_17_x86_64.whl",
        "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
        "a-1-cp311-cp311-win_amd64.whl",
        "a-1-cp311-cp311-macosx_10_9_x86_64.whl",
        "a-1-pp311-pypy311_pp73-manylinux_2_17_x86_64.whl",
    ]
    package = {"name": "a", "version": "1", "wheels": [_wheel(name) for name in (*used, *unused)]}
    assert lock.hashes(package, "3.10") == used


def test_a_package_that_no_supported_machine_needs_is_not_locked():
    package = {"name": "a", "version": "1", "wheels": [_wheel("a-1-py3-none-any.whl")]}
    assert lock.hashes({**package, "marker": "sys_platform == 'win32' or python_version < '3.10'"}, "3.10") == []


def test_the_source_is_locked_where_a_machine_has_no_wheel():
    wheel = _wheel("a-1-cp310-abi3-manylinux_2_17_x86_64.whl")
    package = {"name": "a", "version": "1", "wheels": [wheel], "sdist": {"hashes": {"sha256": "source"}}}
    assert lock.hashes(package, "3.10") == [wheel["hashes"]["sha256"], "source"]
    assert lock.hashes({**package, "marker": "platform_machine == 'x86_64'"}, "3.10") == [wheel["hashes"]["sha256"]]


def test_torch_and_what_only_cuda_needs_are_apart():
    apart = {Requirement(pin).name for name in ("torch", "cuda") for pin in lock.pins(name)}
    assert {"torch", "triton", "nvidia-cublas"} <= apart
    for name in ("service", "models", "dev"):
        assert not apart & {Requirement(pin).name for pin in lock.pins(name)}


def test_the_cpu_builds_of_torch_have_hashes_too():
    text = (lock.LOCKED / "torch.txt").read_text()
    (pin,) = lock.pins("torch")
    version = pin.removeprefix("torch==")
    digests = [line.split()[0] for line in lock.TORCH_CPU.read_text().splitlines() if f"torch-{version}+cpu" in line]
    assert len(digests) >= 2
    assert all(f"--hash=sha256:{digest}" in text for digest in digests)


def test_a_torch_without_hashes_of_cpu_builds_is_an_error():
    with pytest.raises(SystemExit, match=r"torch_cpu\.sha256 has no file of torch 9\.9\.9; add them"):
        lock._torch_cpu_hashes("9.9.9")


def test_targets_install_locked_files_only():
    makefile = (ROOT / "Makefile").read_text()
    installs = re.findall(r"^\t.*\$\(INSTALL\) .*$", makefile, re.MULTILINE)
    # Other servers are compared with this one, and installed for that only.
    unlocked = [line for line in installs if "$(LOCKED)" not in line]
    assert unlocked == ["\t@$(INSTALL) $(@D) -r $<"]
    assert makefile.count("pip install") == 1


def test_an_unknown_name_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lock.py", "nothing"])
    assert lock.main() == 2
    assert "got nothing" in capsys.readouterr().err


def test_no_file_names_an_index():
    for path in (*lock.LOCKED.iterdir(), *lock.REQUIREMENTS.glob("*.txt")):
        assert not re.search(r"https?://|index-url|find-links", path.read_text()), path
