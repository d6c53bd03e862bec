"""Hooks and fixtures of all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import guard


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Start a guard that kills leftover processes, except in workers of pytest-xdist, whose run has one."""
    if hasattr(config, "workerinput"):
        return
    folder = Path(config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    process = guard.begin(folder)

    def end() -> None:
        # Closes the guard's standard input, and waits for its end.
        process.communicate()

    config.add_cleanup(end)


@pytest.fixture(autouse=True, scope="session")
def _no_proxies():
    """Remove the proxy variables: a proxy cannot reach this machine's loopback address."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        yield
