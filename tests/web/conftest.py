"""The whole local service behind its gateway, and a real browser.

``site`` serves copies of the repository's archives from its own store, so that a test can add a model. Debian's
packages ``chromium`` and ``nginx`` must be installed: without them the tests fail, and none is skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, sync_playwright

from serving import settings
from serving.polling import wait_until
from tests.support.place import Place, make_place

pytest.register_assert_rewrite("tests.support.playground")

from tests.support.playground import Playground, Watch  # noqa: E402 (pytest rewrites its assertions only after the line above)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A camera that shows a moving test picture.
    "--use-fake-device-for-media-stream",
]
# Permissions of the page at the start; ``Playground.forbid`` denies them.
PERMISSIONS = ["camera", "clipboard-read", "clipboard-write"]


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Iterator[Place]:
    """The running service."""
    folder = tmp_path_factory.mktemp("web")
    shutil.copytree(settings.read().model_store, folder / "model_store")
    place = make_place(folder, folder / "model_store")
    place.start()
    yield place
    place.end()


@pytest.fixture(scope="session")
def site(place: Place) -> str:
    """The service's URL without a trailing slash."""
    try:
        requests.get(f"{place.gateway}/healthz", timeout=10)
    except requests.ConnectionError:
        pytest.fail("The gateway is not running. It needs nginx; on Debian: sudo apt-get install nginx")
    return place.gateway


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.fail(f"None of {', '.join(BROWSERS)} is installed; on Debian: sudo apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_playground(browser, site) -> Iterator[Callable[..., Playground]]:
    """Opens the page in a new browser profile and waits for its first answers.

    Takes the options of ``Browser.new_context``. ``site`` is the URL of another service; the call does not wait for its
    answers. ``expected`` are the statuses of requests that fail on purpose.
    """
    opened: list[Playground] = []
    default_site = site

    def open_page(site: str = default_site, expected: Iterable[int] = (), **options: Any) -> Playground:
        page = browser.new_context(permissions=PERMISSIONS, **options).new_page()
        page.set_default_timeout(30_000)
        playground = Playground(page, site, Watch(site, set(expected)))
        playground.watch.start(page)
        page.goto(f"{site}/")
        opened.append(playground)
        if site == default_site:
            playground.wait_until_open()
        return playground

    yield open_page
    for playground in opened:
        playground.page.context.close()
    for playground in opened:
        playground.watch.assert_clean()


@pytest.fixture
def playground(open_playground: Callable[..., Playground]) -> Playground:
    """The page in a window of a laptop's size."""
    return open_playground(viewport={"width": 1280, "height": 900})


@pytest.fixture
def deploy_model(place, site):
    """Registers archives of the store at the running service, and removes them afterwards."""
    deployed: list[tuple[Path, str]] = []

    def deploy(archive: Path, model: str) -> None:
        answer = requests.post(
            f"{place.management}/models",
            params={"url": archive.name, "initial_workers": "1", "synchronous": "true"},
            timeout=120,
        )
        assert answer.ok, answer.text
        deployed.append((archive, model))

    yield deploy
    for archive, model in deployed:
        requests.delete(f"{place.management}/models/{model}", timeout=60)
        archive.unlink()
    removed = {model for _, model in deployed}
    # The service caches its list of models for a moment.
    assert wait_until(lambda: removed.isdisjoint(requests.get(f"{site}/v1/models", timeout=30).json()["models"]), 30)
