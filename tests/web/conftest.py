"""The whole local service behind its gateway, and a real browser that looks at it.

``site`` serves copies of the repository's archives from a store of its own, so that a test may add a model. Debian's
packages ``chromium`` and ``nginx`` must be installed: their absence fails the tests and skips none.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator

import pytest
import requests
from playwright.sync_api import Browser, sync_playwright

from serving import settings
from tests.support.place import Place, make_place

pytest.register_assert_rewrite("tests.support.playground")

from tests.support.playground import Playground, Watch  # noqa: E402 (its assertions are rewritten only from here on)

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
# What a person has allowed the page; ``Playground.forbid`` takes it back.
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
def site(place) -> str:
    """Its address in a browser, without a slash at the end."""
    try:
        requests.get(f"{place.gateway}/healthz", timeout=10)
    except requests.ConnectionError:
        pytest.fail("The gateway does not run. It needs nginx; on Debian: sudo apt-get install nginx")
    return place.gateway


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail(f"None of {', '.join(BROWSERS)} is installed; on Debian: sudo apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_playground(browser, site) -> Iterator[Callable[..., Playground]]:
    """Opens the page in a browser profile of its own and waits for its first answers.

    Takes the options of ``Browser.new_context``. ``site`` names another service, which is not waited for, and
    ``expected`` the statuses of requests that it will refuse.
    """
    opened: list[Playground] = []
    usual = site

    def opening(site: str = usual, expected: Iterable[int] = (), **options) -> Playground:
        page = browser.new_context(permissions=PERMISSIONS, **options).new_page()
        page.set_default_timeout(30_000)
        playground = Playground(page, site, Watch(site, set(expected)))
        playground.watch.attend(page)
        page.goto(f"{site}/")
        opened.append(playground)
        if site == usual:
            playground.wait_until_open()
        return playground

    yield opening
    for playground in opened:
        playground.page.context.close()
    for playground in opened:
        playground.watch.assert_clean()


@pytest.fixture
def playground(open_playground) -> Playground:
    """The page in a window of ordinary size."""
    return open_playground(viewport={"width": 1280, "height": 900})
