"""Write ``requirements/locked/``: all packages of each file in ``requirements/``, with the SHA-256 of their files.

    python -m requirements.lock [NAME...]       `make lock` runs it in an environment with uv; without a NAME, all

People edit ``requirements/*.txt``; ``make setup`` and the other targets install from ``requirements/locked/*.txt`` with
pip's ``--require-hashes``. A version that a file in ``requirements/`` does not pin stays as it is locked; to update all
of these, delete the locked file first. A locked file has the files for the supported systems and Pythons, which are
wheels wherever there is one. It includes what its source includes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from requirements.install import NEWEST, OLDEST

REQUIREMENTS = Path(__file__).resolve().parent
LOCKED = REQUIREMENTS / "locked"
# SHA-256 and name of the files of PyTorch's own index, which the lock adds to those of the package index.
TORCH_CPU = REQUIREMENTS / "torch_cpu.sha256"
# The oldest Python of a file, if it is not that of the project.
_PYTHON = {"conformance": "3.11", "docs": "3.11.5", "lock": "3.11", "sbom": "3.11"}
# sys_platform, platform_system and platform_machine of the supported systems, and the platforms of their wheels.
_SYSTEMS = (
    ("linux", "Linux", "x86_64", re.compile(r"any|(many)?linux.*_x86_64")),
    ("linux", "Linux", "aarch64", re.compile(r"any|(many)?linux.*_aarch64")),
    ("darwin", "Darwin", "arm64", re.compile(r"any|macosx_.*_(arm64|universal2)")),
)
# Only files of these wheels are used, not their packages.
_WITHOUT_DEPENDENCIES = ("perf_analyzer", "triton")
# torch, and what only its CUDA build needs, have files of their own: install.py installs the build that pip chooses.
_TORCH = ("torch", "cuda")
_CUDA = re.compile(r"(cuda|nvidia)-|triton=")
# An empty package that torch-model-archiver requires for Python 2. It has no wheel.
_LEFT_OUT = "enum-compat"


class Machine(NamedTuple):
    """A supported system with one version of Python: what its pip evaluates.

    Attributes:
        markers: the environment for markers.
        tags: interpreter and ABI of the wheels that it takes.
        platforms: the platforms of the wheels that it takes.
    """

    markers: dict[str, str]
    tags: set[tuple[str, str]]
    platforms: re.Pattern[str]

    def takes(self, tag: Tag) -> bool:
        """Whether its pip installs wheels with this tag."""
        return (tag.interpreter, tag.abi) in self.tags and self.platforms.fullmatch(tag.platform) is not None


def names() -> list[str]:
    """The names of the files that are locked, each after those that it includes."""
    stems = {path.stem for path in REQUIREMENTS.glob("*.txt")} - {"constraints"}
    return sorted(stems, key=lambda name: (len(included(name)), name))


def included(name: str) -> list[str]:
    """The names of the files that a file in ``requirements/`` includes, directly or not."""
    direct = re.findall(r"^-r (\w+)\.txt", (REQUIREMENTS / f"{name}.txt").read_text(), re.MULTILINE)
    return [each for part in direct for each in (*included(part), part)]


def pins(name: str) -> list[str]:
    """The lines of a locked file that name a package: ``numpy==2.4.6 ; python_full_version >= '3.11'``."""
    path = LOCKED / f"{name}.txt"
    return re.findall(r"^\w[^\\\n]*?(?= \\$)", path.read_text(), re.MULTILINE) if path.exists() else []


def machines(oldest: str) -> Iterator[Machine]:
    """The supported machines whose Python is not older than a version such as 3.10 or 3.11.5."""
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        abi = f"cp3{minor}"
        tags = [*cpython_tags((3, minor), [abi], ["any"]), *compatible_tags((3, minor), abi, ["any"])]
        # Markers can separate the releases of one version.
        for release in (f"3.{minor}.0", f"3.{minor}.99"):
            if Marker(f"python_full_version < '{oldest}'").evaluate({"python_full_version": release}):
                continue
            for system, name, machine, platforms in _SYSTEMS:
                markers = {
                    "implementation_name": "cpython",
                    "os_name": "posix",
                    "platform_machine": machine,
                    "platform_python_implementation": "CPython",
                    "platform_system": name,
                    "python_full_version": release,
                    "python_version": f"3.{minor}",
                    "sys_platform": system,
                }
                yield Machine(markers, {(tag.interpreter, tag.abi) for tag in tags}, platforms)


def hashes(package: dict[str, Any], oldest: str) -> list[str]:
    """SHA-256 of the files of a package that supported machines install; none if no machine needs the package.

    Args:
        package: a package of a ``pylock.toml``.
        oldest: the oldest Python.

    Returns:
        The hashes of wheels. The source comes last, if a machine needs the package and has no wheel of it.
    """
    wheels = {}
    for wheel in package.get("wheels", ()):
        filename = urllib.parse.unquote(wheel["url"].rpartition("/")[2])
        wheels[wheel["hashes"]["sha256"]] = parse_wheel_filename(filename)[3]
    marker = Marker(package["marker"]) if "marker" in package else None
    used: set[str] = set()
    built = False
    for machine in machines(oldest):
        if not marker or marker.evaluate(machine.markers):
            fitting = {digest for digest, tags in wheels.items() if any(machine.takes(tag) for tag in tags)}
            used |= fitting
            built |= not fitting
    source = [package["sdist"]["hashes"]["sha256"]] if built else []
    return [digest for digest in wheels if digest in used] + source


def _torch_cpu_hashes(version: str) -> list[str]:
    """The hashes of the CPU builds of a version of torch."""
    files = [line.split() for line in TORCH_CPU.read_text().splitlines() if not line.startswith("#")]
    digests = [digest for digest, name in files if name.startswith(f"torch-{version}+cpu-")]
    if not digests:
        sys.exit(f"error: {TORCH_CPU} has no file of torch {version}; add them from PyTorch's index of CPU builds")
    return digests


def _compile(name: str) -> list[dict[str, Any]]:
    """The packages of one file, from uv."""
    import tomllib  # Not in Python 3.10, where tests import this module.

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "pylock.toml"
        # uv keeps the versions of an existing output.
        existing = ['lock-version = "1.0"', 'created-by = "make lock"']
        for pin in (pin for part in (*_TORCH, *included(name), name) for pin in pins(part)):
            package, version = pin.split()[0].split("==")
            existing += ["[[packages]]", f'name = "{package}"', f'version = "{version}"']
        output.write_text("\n".join(existing))
        command = [
            *("uv", "pip", "compile", "--quiet", "--universal", "--format", "pylock.toml"),
            *("--python-version", _PYTHON.get(name, ".".join(map(str, OLDEST))), "--output-file", str(output)),
            *(["--no-deps"] if name in _WITHOUT_DEPENDENCIES else []),
            str(REQUIREMENTS / f"{name}.txt"),
        ]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"error: uv could not lock {name}.txt; the reason is above")
        packages: list[dict[str, Any]] = tomllib.loads(output.read_text())["packages"]
        return packages


def _write(name: str, header: str, entries: dict[str, list[str]]) -> None:
    """Write a locked file: the lines of its header, and pins with their hashes."""
    texts = [" \\\n    --hash=sha256:".join([pin, *digests]) + "\n" for pin, digests in entries.items()]
    (LOCKED / f"{name}.txt").write_text(f"# Written by `make lock` from requirements/{header}\n" + "".join(texts))


def lock(name: str) -> None:
    """Lock one file of ``requirements/``; with ``service``, also torch and what its CUDA build needs."""
    entries: dict[str, list[str]] = {}
    for package in _compile(name):
        digests = hashes(package, _PYTHON.get(name, ".".join(map(str, OLDEST))))
        if digests and package["name"] != _LEFT_OUT:
            marker = f" ; {package['marker']}" if "marker" in package else ""
            entries[f"{package['name']}=={package['version']}{marker}"] = digests
    if name == "service":
        torch = {
            pin: [*digests, *_torch_cpu_hashes(pin.split("==")[1])]
            for pin, digests in entries.items()
            if pin.startswith("torch==")
        }
        _write("torch", "service.txt: torch, with its CPU builds; do not edit.", torch)
        cuda = {pin: digests for pin, digests in entries.items() if _CUDA.match(pin)}
        _write("cuda", "service.txt: what the CUDA build of torch needs; do not edit.", cuda)
    parts = included(name)
    apart = _TORCH if "service" in (*parts, name) else ()
    known = {pin for part in (*parts, *apart) for pin in pins(part)}
    direct = [part for part in parts if not any(part in included(other) for other in parts)]
    header = "\n".join([f"{name}.txt; do not edit.", *(f"-r {part}.txt" for part in direct)])
    _write(name, header, {pin: digests for pin, digests in entries.items() if pin not in known})


def main() -> int:
    """Lock the files that the arguments name, or all."""
    LOCKED.mkdir(exist_ok=True)
    known = names()
    chosen = sys.argv[1:] or known
    unknown = set(chosen) - set(known)
    if unknown:
        print(f"error: the names must be of {', '.join(known)}, got {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    for name in chosen:
        lock(name)
        print(f"→ requirements/locked/{name}.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
