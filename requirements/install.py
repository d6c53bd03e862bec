"""Create a virtual environment and install packages into it, with one line of progress instead of pip's output.

    python3 requirements/install.py FOLDER [--torch] PIP_ARGUMENT...

With --torch, first the locked torch: the build that pip chooses on this machine, with CUDA or for processors only, and
what that build needs. An existing environment is kept, and missing packages are added. pip's output is in
FOLDER/install.log. This file uses only the standard library and the syntax of Python 3.7, so that an old Python can run
it and report its version.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# TorchServe 0.12 and torch 2.13 were tried with these. Older ones lack some of the pinned packages.
OLDEST, NEWEST = (3, 10), (3, 13)
# The lines in which pip names a package that it looks up or finds installed, and the packages that it will install.
_LOOKED_UP = re.compile(r"^(?:Collecting|Processing|Requirement already satisfied:) ([A-Za-z0-9._/-]+)", re.MULTILINE)
_INSTALLING = re.compile(r"^Installing collected packages: (.*)", re.MULTILINE)
_LOCKED = Path(__file__).resolve().parent / "locked"
_REFRESH_S = 1.0
# Without a terminal, the first line of progress appears after this time, and each further one after five times as long.
# So the output of `make serve` fits on a screen even if the installation takes an hour.
_FIRST_LINE_S, _NEXT_LINE_FACTOR = 60.0, 5
_ERROR_LINES = 3


def unusable(version: tuple[int, ...]) -> str | None:
    """The reason why this Python cannot be used; ``None`` if it can."""
    oldest, newest = (".".join(map(str, each)) for each in (OLDEST, NEWEST))
    if not OLDEST <= version[:2] <= NEWEST:
        actual = ".".join(map(str, version[:2]))
        return f"{sys.executable} must be Python {oldest} to {newest}, is {actual}; choose one with PYTHON="
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        return f"{sys.executable} lacks the module venv; on Debian: sudo apt-get install python3-venv"
    return None


class _Display:
    """On a terminal, one line that is rewritten; elsewhere, a few lines at increasing intervals."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._next_s = _FIRST_LINE_S
        self._terminal = sys.stdout.isatty()

    def show(self, text: str) -> None:
        """Show the current step."""
        elapsed = time.monotonic() - self._begun
        if self._terminal:
            print(f"\r\x1b[K{text[:70]} {elapsed:.0f} s", end="", flush=True)
        elif elapsed >= self._next_s:
            self._next_s *= _NEXT_LINE_FACTOR
            print(f"{text} {elapsed:.0f} s", flush=True)

    def end(self, text: str) -> None:
        """Replace the progress with a last line."""
        elapsed = time.monotonic() - self._begun
        print(f"{chr(13) + chr(27) + '[K' if self._terminal else ''}{text} in {elapsed:.0f} s", flush=True)


def _step(printed: str, installed: int) -> str:
    """The current step of pip, from its output and the number of installed packages."""
    installing = _INSTALLING.search(printed)
    if installing:
        return f"Installing packages: {installed} of {installing[1].count(',') + 1}"
    looked_up = _LOOKED_UP.findall(printed)
    if looked_up:
        return f"Looking up and downloading packages: {len(set(looked_up))} ({Path(looked_up[-1]).name})"
    return "Looking up packages"


def _installed(folder: Path, since: float) -> int:
    """The number of packages installed since a Unix time. pip does not print when it installs one."""
    infos = folder.glob("lib/python*/site-packages/*.dist-info")
    return sum(info.stat().st_mtime >= since for info in infos)


def _pip(command: list[str], folder: Path, log: Path, display: _Display) -> int:
    """Run pip and show its progress; return its exit code."""
    since = time.time()
    with log.open("w") as output:
        pip = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    return pip.wait(_REFRESH_S)
                except subprocess.TimeoutExpired:
                    display.show(_step(log.read_text(errors="replace"), _installed(folder, since)))
        except BaseException:
            pip.terminate()
            pip.wait()
            raise


def _torch(folder: Path) -> Iterator[list[str]]:
    """The arguments of pip for torch: of the next command, after the one before has succeeded."""
    version = re.search(r"^torch==(\S+)", (_LOCKED / "torch.txt").read_text(), re.MULTILINE)
    assert version
    packages = "lib/python*/site-packages"
    verified = ["--no-deps", "--require-hashes", "-r"]
    if not any(folder.glob(f"{packages}/torch-{version[1]}*.dist-info")):
        # With hashes pip prefers files whose hash the index names, so it would not take a CPU build from a folder.
        wheels = str(folder / "torch")
        shutil.rmtree(wheels, ignore_errors=True)
        yield ["download", "--no-deps", "--dest", wheels, version[0]]
        yield ["install", "--no-index", "--find-links", wheels, *verified, str(_LOCKED / "torch.txt")]
        shutil.rmtree(wheels, ignore_errors=True)
    if not any(folder.glob(f"{packages}/torch-*+cpu.dist-info")):
        yield ["install", *verified, str(_LOCKED / "cuda.txt")]


def install(folder: Path, arguments: list[str]) -> int:
    """Create the environment and run pip in it; return the exit code."""
    log = folder / "install.log"
    display = _Display()
    print(f"Installing packages into {folder}, with pip's output in {log}", flush=True)
    # After an interrupted setup the environment has Python but not pip.
    if not (folder / "bin" / "pip").exists():
        command = [sys.executable, "-m", "venv", str(folder)]
        venv = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if venv.returncode:
            print(f"error: the virtual environment {folder} could not be created: {venv.stdout}", file=sys.stderr)
            return 1
    python = str(folder / "bin" / "python")
    with_torch = arguments[0] == "--torch"
    count = 0
    for words in itertools.chain(_torch(folder) if with_torch else (), [["install", *arguments[with_torch:]]]):
        command = [python, "-m", "pip", words[0], "--disable-pip-version-check", "--no-input", *words[1:]]
        code = _pip(command, folder, log, display)
        printed = log.read_text(errors="replace")
        if code:
            # If the build of a package failed, the errors of its pip are indented.
            lines = [line.strip() for line in printed.splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("ERROR:")] or lines
            reason = "\n".join(errors[-_ERROR_LINES:]) or f"pip ended with {code}"
            display.end("failed")
            print(f"error: the packages were not installed; pip's output is in {log}\n{reason}", file=sys.stderr)
            return 1
        installing = _INSTALLING.search(printed)
        count += installing[1].count(",") + 1 if installing else 0
    display.end(f"{count} packages installed" if count else "nothing to install")
    return 0


def main() -> int:
    """Run the command line; return 0 for success, 1 for an error, 2 for wrong usage, 130 if interrupted."""
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    reason = unusable(sys.version_info[:2])
    if reason:
        print(f"error: {reason}", file=sys.stderr)
        return 1
    try:
        return install(Path(sys.argv[1]), sys.argv[2:])
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to continue", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
