"""Make a virtual environment and install packages into it, with one line of progress in place of pip's hundreds.

    python3 requirements/install.py FOLDER PIP_ARGUMENT...

An environment that is there is kept, and what it lacks is added. All that pip prints is in FOLDER/install.log. Standard
library alone, and old syntax: it also has to tell an old Python what is wrong.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

# TorchServe 0.12 and torch 2.13 run on these; README.md says why no others.
OLDEST, NEWEST = (3, 10), (3, 13)
# What pip prints as it goes on, and the package that it names.
_STEP = re.compile(r"(?:Collecting|Requirement already satisfied:|Obtaining|Looking in links:) ?([A-Za-z0-9._-]*)")
_INSTALLING = re.compile(r"Installing collected packages: (.*)")
# Seconds between two lines where there is no terminal.
_QUIET_S = 60.0


def unusable(version: tuple[int, ...]) -> str | None:
    """Why a Python of this version cannot be used; ``None`` if it can."""
    oldest, newest = (".".join(map(str, each)) for each in (OLDEST, NEWEST))
    if not OLDEST <= version[:2] <= NEWEST:
        found = ".".join(map(str, version[:2]))
        return f"{sys.executable} is Python {found}, and {oldest} to {newest} are supported; name one with PYTHON="
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        return f"{sys.executable} lacks the module venv; on Debian: sudo apt-get install python3-venv"
    return None


class _Display:
    """One line on a terminal, written anew; elsewhere a line a minute."""

    def __init__(self) -> None:
        self._begun = self._shown = time.monotonic()
        self._terminal = sys.stdout.isatty()

    def show(self, text: str) -> None:
        """Show what is going on."""
        now = time.monotonic()
        line = f"{text}, {now - self._begun:.0f} s"
        if self._terminal:
            print(f"\r\x1b[K{line[:78]}", end="", flush=True)
        elif now - self._shown > _QUIET_S:
            self._shown = now
            print(line, flush=True)

    def end(self, text: str) -> None:
        """Leave the last line behind."""
        print(f"{chr(13) + chr(27) + '[K' if self._terminal else ''}{text} in {time.monotonic() - self._begun:.0f} s")


def install(folder: Path, arguments: list[str]) -> int:
    """Make the environment and run pip in it; the exit code."""
    python = folder / "bin" / "python"
    log = folder / "install.log"
    display = _Display()
    print(f"Installing packages into {folder}, with pip's output in {log}", flush=True)
    if not python.exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True)
        if made.returncode:
            print(
                f"error: the virtual environment {folder} was not made: {made.stderr or made.stdout}", file=sys.stderr
            )
            return 1
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    count = 0
    with (
        log.open("w") as copy,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as pip,
    ):
        assert pip.stdout is not None
        for line in pip.stdout:
            copy.write(line)
            copy.flush()
            step, installing = _STEP.match(line), _INSTALLING.match(line)
            if step:
                count += bool(step[1])
                display.show(f"Looking up and downloading: {count} packages, {step[1]}")
            elif installing:
                count = installing[1].count(",") + 1
                display.show(f"Installing {count} packages")
    if pip.returncode:
        errors = [line for line in log.read_text().splitlines() if line.startswith("ERROR:")]
        reason = "\n".join(errors[-3:]) or f"pip ended with {pip.returncode}"
        display.end("failed")
        print(f"error: the packages were not installed; all that pip printed is in {log}\n{reason}", file=sys.stderr)
        return 1
    display.end(f"{count} packages")
    return 0


def main() -> int:
    """The exit code: 0 done, 1 failed, 2 wrong usage."""
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
        print("\nstopped; run it again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
