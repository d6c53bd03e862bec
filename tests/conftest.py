"""What holds for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import guard


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have a guard end what this run leaves, unless this is one of pytest-xdist's workers, which belong to a run."""
    if hasattr(config, "workerinput"):
        return
    folder = Path(config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    watch = guard.begin(folder)
    config.add_cleanup(lambda: _end(watch))


def _end(watch) -> None:
    watch.stdin.close()
    watch.wait()


@pytest.fixture(autouse=True, scope="session")
def _no_proxies():
    """Requests to this machine's loopback address must not go to somebody's proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        yield
