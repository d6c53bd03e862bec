"""The playground as a person uses it, and a watch for console errors and requests to other sites."""

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
    const text = document.getElementById("announcement").textContent;
    return models.every(model => text.includes(`${model}:`));
}"""

# The page reads the list of models when its tab becomes visible.
_RETURN_TO_TAB = """([model, present]) => {
    document.dispatchEvent(new Event("visibilitychange"));
    return Boolean(document.getElementById(`model-${model}`)) === present;
}"""


@dataclasses.dataclass
class Watch:
    """Records what a page must not do: write errors to its console, or send requests to another site.

    Attributes:
        site: the service's URL without a trailing slash.
        expected: statuses of failed requests that a test provokes, which the browser writes to the console; 0 for a
            request without an answer.
    """

    site: str
    expected: set[int] = dataclasses.field(default_factory=set)
    _errors: list[str] = dataclasses.field(default_factory=list)

    def start(self, page: Page) -> None:
        """Start to record."""
        page.on("console", self._record_console)
        page.on("pageerror", lambda error: self._errors.append(f"uncaught: {error}"))
        page.on("request", self._record_request)

    def assert_clean(self) -> None:
        """Nothing was recorded."""
        assert self._errors == []

    def _record_console(self, message: ConsoleMessage) -> None:
        failed = _FAILED_REQUEST.search(message.text)
        if message.type in ("error", "warning") and not (failed and int(failed["status"] or 0) in self.expected):
            self._errors.append(f"console: {message.text}")

    def _record_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.site}/", f"blob:{self.site}/", "data:")):
            self._errors.append(f"request to another site: {request.url}")


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
        """The label in a card's headline."""
        return self.card(model).locator(".verdict strong").inner_text()

    def bars(self, model: str) -> dict[str, str]:
        """Each label of a card with its probability as text."""
        rows = self.card(model).locator(".bars tbody tr")
        return dict(rows.evaluate_all("rows => rows.map(row => row.innerText.split(/\\s*\\t\\s*/))"))

    def model_input(self, model: str) -> np.ndarray:
        """The picture that a card shows as the model's input: uint8 [28, 28]."""
        image = self.card(model).get_by_alt_text(f"Input of {model}", exact=True)
        return pixels(base64.b64decode(str(image.get_attribute("src")).partition(",")[2]))

    def drawing(self) -> np.ndarray:
        """The pixels of the drawing pad: uint8 [28, 28]."""
        script = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data]"
        return np.array(self.page.locator("#pad canvas").evaluate(script), np.uint8).reshape(28, 28, 4)[..., 0]

    @contextmanager
    def answers(self, models: tuple[str, ...] = IMAGE_MODELS) -> Iterator[None]:
        """Wait after the block until these models have answered, with a prediction or an error."""
        self.page.locator("#announcement").evaluate("element => { element.textContent = '' }")
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

    def wait_for_card(self, model: str, present: bool) -> None:
        """Return to the tab repeatedly until a model's card has appeared, or has disappeared."""
        self.page.wait_for_function(_RETURN_TO_TAB, arg=[model, present], polling=200)

    def forbid(self, permission: str) -> None:
        """Deny the page a permission such as ``camera``, like a person in the browser's dialog."""
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
        """Wait until every image model has answered the first picture."""
        for model in IMAGE_MODELS:
            expect(self.card(model).locator(".verdict strong")).to_be_visible()

    def prediction(self, model: str, content: bytes, content_type: str = "image/png") -> Any:
        """The service's answer to a program that sends a picture file."""
        return requests.post(
            f"{self.site}/predictions/{model}",
            params={"picture": "true"},
            data=content,
            headers={"Content-Type": content_type},
            timeout=30,
        ).json()

    def assert_shows(self, model: str, answer: Any) -> None:
        """A card shows exactly the answer that a program receives."""
        assert self.verdict(model) == answer["label"]
        assert list(self.bars(model)) == list(answer["probabilities"])
        for label, text in self.bars(model).items():
            assert_shows_probability(text, answer["probabilities"][label])
        np.testing.assert_array_equal(self.model_input(model), pixels(base64.b64decode(answer["picture"])))


def pixels(file: bytes) -> np.ndarray:
    """A picture file as uint8 [height, width] or [height, width, channels]."""
    return np.asarray(Image.open(io.BytesIO(file)))


def photograph() -> bytes:
    """A JPEG of a test image like a photo in a shop: large, dark on white, off center."""
    item = Image.open(SAMPLES / "trouser.png").resize((420, 420), Image.Resampling.BICUBIC)
    picture = Image.new("RGB", (800, 600), "white")
    picture.paste(Image.eval(item, lambda value: 255 - value), (300, 120))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    return file.getvalue()


def assert_shows_probability(text: str, probability: float) -> None:
    """``text`` is a probability in the page's format."""
    if text == "<0.1%":
        assert 0 < probability < 0.0005
    elif text == ">99.9%":
        assert 0.9995 <= probability < 1
    else:
        assert text.endswith("%")
        assert abs(float(text[:-1]) / 100 - probability) < 0.00051
