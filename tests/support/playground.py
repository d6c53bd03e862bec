"""The playground as a person uses it, and what the page must never do while a test uses it."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image
from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect

IMAGE_MODELS = ("fashion_convnet", "fashion_mlp")
SAMPLES = Path(__file__).parents[2] / "web" / "playground" / "samples"

_FAILED_REQUEST = re.compile(r"Failed to load resource: (?:.*status of (?P<status>\d+)|net::ERR_)")
_HAS_ANSWERS = """models => {
    const said = document.getElementById("announcement").textContent;
    return models.every(model => said.includes(`${model}:`));
}"""

# The page reads the list of models when its tab is shown.
_LOOK = """([model, there]) => {
    document.dispatchEvent(new Event("visibilitychange"));
    return Boolean(document.getElementById(`model-${model}`)) === there;
}"""


@dataclasses.dataclass
class Watch:
    """Notes what a page must not do: errors on its console, and requests to anything but its own service.

    Attributes:
        site: the service's address.
        expected: statuses of failed requests that a test provokes, 0 where there is no answer at all; the browser
            writes each to the console.
    """

    site: str
    expected: set[int] = dataclasses.field(default_factory=set)
    _errors: list[str] = dataclasses.field(default_factory=list)

    def attend(self, page: Page) -> None:
        """Begin to note."""
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self._errors.append(f"uncaught: {error}"))
        page.on("request", self._note_request)

    def assert_clean(self) -> None:
        """Nothing was noted."""
        assert self._errors == []

    def _note_console(self, message: ConsoleMessage) -> None:
        failed = _FAILED_REQUEST.search(message.text)
        if message.type in ("error", "warning") and not (failed and int(failed["status"] or 0) in self.expected):
            self._errors.append(f"console: {message.text}")

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.site}/", f"blob:{self.site}/", "data:")):
            self._errors.append(f"outside request: {request.url}")


@dataclasses.dataclass
class Playground:
    """The open page."""

    page: Page
    site: str
    watch: Watch

    def card(self, model: str) -> Locator:
        """A model's card."""
        return self.page.get_by_role("article", name=model, exact=True)

    def verdict(self, model: str) -> str:
        """The label that a card names as the model's answer."""
        return self.card(model).locator(".verdict strong").inner_text()

    def bars(self, model: str) -> dict[str, str]:
        """Each label of a card with the probability in words."""
        rows = self.card(model).locator(".bars tbody tr")
        return dict(rows.evaluate_all("rows => rows.map(row => row.innerText.split(/\\s*\\t\\s*/))"))

    def seen(self, model: str) -> np.ndarray:
        """The picture that a card shows as the one that the model saw: uint8 [28, 28]."""
        address = self.card(model).get_by_alt_text(f"The picture as {model} saw it")
        return pixels(base64.b64decode(str(address.get_attribute("src")).partition(",")[2]))

    def drawing(self) -> np.ndarray:
        """What is on the drawing pad: uint8 [28, 28]."""
        script = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data]"
        return np.array(self.page.locator("#pad canvas").evaluate(script), np.uint8).reshape(28, 28, 4)[..., 0]

    @contextmanager
    def answers(self, models: tuple[str, ...] = IMAGE_MODELS) -> Iterator[None]:
        """Wait, after what is done inside, until these models have answered or refused."""
        self.page.locator("#announcement").evaluate("place => { place.textContent = '' }")
        yield
        self.page.wait_for_function(_HAS_ANSWERS, arg=list(models))

    def choose_file(self, name: str, content: bytes, content_type: str) -> None:
        """Choose a file with the file dialog of the browser, and wait for the answers."""
        with self.answers():
            with self.page.expect_file_chooser() as chooser:
                self.page.get_by_text("Choose a file").click()
            chooser.value.set_files({"name": name, "mimeType": content_type, "buffer": content})

    def choose_sample(self, label: str) -> None:
        """Choose a test image, and wait for the answers."""
        with self.answers():
            self.page.get_by_role("button", name=label, exact=True).click()

    def look_until(self, model: str, there: bool) -> None:
        """Return to the tab until it has a card for a model, or has none any more."""
        self.page.wait_for_function(_LOOK, arg=[model, there], polling=200)

    def forbid(self, permission: str) -> None:
        """Refuse the page a permission such as ``camera``, as somebody does in the browser's dialog."""
        devtools = self.page.context.new_cdp_session(self.page)
        context = devtools.send("Target.getTargetInfo")["targetInfo"]["browserContextId"]
        devtools.send(
            "Browser.setPermission",
            {
                "origin": self.site,
                "permission": {"name": permission},
                "setting": "denied",
                "browserContextId": context,
            },
        )

    def wait_until_open(self) -> None:
        """The page is there, and its first picture is answered."""
        for model in IMAGE_MODELS:
            expect(self.card(model).locator(".verdict strong")).to_be_visible()

    def prediction(self, model: str, content: bytes, content_type: str = "image/png") -> Any:
        """What the service answers to a program that sends a picture file."""
        return requests.post(
            f"{self.site}/predictions/{model}",
            params={"picture": "true"},
            data=content,
            headers={"Content-Type": content_type},
            timeout=30,
        ).json()

    def assert_shows(self, model: str, answer: Any) -> None:
        """A card shows just what the service answers to a program."""
        assert self.verdict(model) == answer["label"]
        assert list(self.bars(model)) == list(answer["probabilities"])
        for label, words in self.bars(model).items():
            assert_says(words, answer["probabilities"][label])
        np.testing.assert_array_equal(self.seen(model), pixels(base64.b64decode(answer["picture"])))


def pixels(file: bytes) -> np.ndarray:
    """A picture file as uint8 [height, width] or [height, width, channels]."""
    return np.asarray(Image.open(io.BytesIO(file)))


def png(array: np.ndarray) -> bytes:
    """An array as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def photograph() -> bytes:
    """A JPEG of a test image as a shop would show it: large, dark on white, off centre."""
    item = Image.open(SAMPLES / "trouser.png").resize((420, 420), Image.Resampling.BICUBIC)
    picture = Image.new("RGB", (800, 600), "white")
    picture.paste(Image.eval(item, lambda value: 255 - value), (300, 120))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    return file.getvalue()


def assert_says(words: str, probability: float) -> None:
    """``words`` is a probability as the page writes it."""
    if words == "<0.1%":
        assert 0 < probability < 0.0005
    elif words == ">99.9%":
        assert 0.9995 <= probability < 1
    else:
        assert words.endswith("%")
        assert abs(float(words[:-1]) / 100 - probability) < 0.00051
