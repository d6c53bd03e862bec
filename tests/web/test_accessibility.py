"""Accessibility: axe's rules, keyboard only, small and large windows, light and dark."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.support.playground import IMAGE_MODELS, SAMPLES, Playground

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

# axe measures colors, so transitions must have ended.
_TRANSITIONS_ENDED = """() => Promise.all(
    document.getAnimations().filter(each => each instanceof CSSTransition).map(each => each.finished)
)"""
_BACKGROUND_RGBA = "part => getComputedStyle(part).backgroundColor.match(/\\d+/g).map(Number)"


def _assert_no_violations(page: Page) -> None:
    page.evaluate(_TRANSITIONS_ENDED)
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def _explain(playground: Playground) -> None:
    card = playground.card("fashion_mlp")
    card.get_by_role("button", name="Explain the answer of fashion_mlp").click()
    expect(card.locator(".explain-button img")).to_be_visible()


def _draw(playground: Playground) -> None:
    playground.page.get_by_role("tab", name="Draw").click()
    with playground.answers():
        playground.page.locator("#pad canvas").click(position={"x": 50, "y": 50})


def _fail(playground: Playground) -> None:
    playground.watch.expected.add(415)
    playground.choose_file("notes.txt", b"This is not a picture.", "text/plain")


def _photograph(playground: Playground) -> None:
    playground.page.get_by_role("button", name="Take a photo").click()
    expect(playground.page.get_by_role("button", name="Take", exact=True)).to_be_enabled()


def _predict_vector(playground: Playground) -> None:
    with playground.answers(("blobs_mlp",)):
        playground.card("blobs_mlp").get_by_role("button", name="Predict").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_no_violation(open_playground, viewport, scheme):
    playground = open_playground(viewport=viewport, color_scheme=scheme)
    _assert_no_violations(playground.page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("use", [_explain, _draw, _fail, _photograph, _predict_vector], ids=lambda use: use.__name__)
def test_axe_finds_no_violation_while_the_page_is_used(open_playground, use, scheme):
    playground = open_playground(viewport=WIDE, color_scheme=scheme)
    use(playground)
    _assert_no_violations(playground.page)


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_colors_follow_the_system(open_playground, scheme, dark):
    page = open_playground(color_scheme=scheme).page
    for part in ("body", ".card", ".input"):
        color = page.locator(part).first.evaluate(_BACKGROUND_RGBA)
        assert (max(color[:3]) < 64) == dark
        assert (min(color[:3]) > 192) != dark


@pytest.mark.parametrize("width", [320, 390, 700, 960, 1280, 1920])
def test_nothing_is_wider_than_the_window(open_playground, width):
    playground = open_playground(viewport={"width": width, "height": 800})
    page = playground.page
    for tab in ("Draw", "Picture"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    first, second = (playground.card(model).bounding_box() for model in IMAGE_MODELS)
    if width < 650:
        assert second["y"] >= first["y"] + first["height"]
    else:
        assert second["y"] == first["y"]


def test_phone_shows_picture_and_first_answer_at_once(open_playground):
    playground = open_playground(viewport=NARROW, has_touch=True, is_mobile=True)
    verdict = playground.card("fashion_convnet").locator(".verdict").bounding_box()
    assert verdict["y"] + verdict["height"] < NARROW["height"]


class Keyboard:
    """A person without a mouse. Each move of the focus must be visible."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def tab_to(self, selector: str) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(60):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                self._assert_focus_is_visible()
                return
        raise AssertionError(f"Tab never reaches {selector}")

    def press(self, *keys: str) -> None:
        """Press keys one after another."""
        for key in keys:
            self.page.keyboard.press(key)

    def _assert_focus_is_visible(self) -> None:
        # The file field is invisible, so its label shows the focus.
        outline = self.page.evaluate(
            """() => {
                const focused = document.activeElement;
                const label = focused.labels?.[0]?.matches(".button") ? focused.labels[0] : null;
                const visible = label ?? focused.closest(".choice label") ?? focused;
                const style = getComputedStyle(visible);
                return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
            }"""
        )
        assert outline


@pytest.fixture
def keyboard(playground):
    return Keyboard(playground.page)


def test_keyboard_skips_to_the_answers(playground, keyboard):
    keyboard.press("Tab")
    expect(playground.page.get_by_role("link", name="Skip to the answers")).to_be_focused()
    expect(playground.page.get_by_role("link", name="Skip to the answers")).to_be_in_viewport()
    keyboard.press("Enter")
    expect(playground.page.locator("#answers")).to_be_focused()
    keyboard.press("Tab")
    expect(playground.page.get_by_role("button", name="Explain the answer of fashion_convnet")).to_be_focused()


def test_keyboard_chooses_a_test_image_and_explains_the_answer(playground, keyboard):
    keyboard.tab_to("button[title='Dress']")
    with playground.answers():
        keyboard.press("Enter")
    for model in IMAGE_MODELS:
        playground.assert_shows(model, playground.prediction(model, (SAMPLES / "dress.png").read_bytes()))
    keyboard.tab_to(".explain-button")
    keyboard.press("Space")
    expect(playground.card("fashion_convnet").locator(".explain-button img")).to_be_visible()


def test_keyboard_chooses_a_file(playground, keyboard):
    keyboard.tab_to("#file")
    with playground.page.expect_file_chooser() as chooser:
        keyboard.press("Space")
    with playground.answers():
        chooser.value.set_files(SAMPLES / "bag.png")
    playground.assert_shows("fashion_mlp", playground.prediction("fashion_mlp", (SAMPLES / "bag.png").read_bytes()))


def test_keyboard_takes_a_photo_and_returns_to_the_button(playground, keyboard):
    keyboard.tab_to("#camera-open")
    keyboard.press("Enter")
    expect(playground.page.get_by_role("button", name="Take", exact=True)).to_be_enabled()
    keyboard.tab_to("#camera [data-part=take]")
    with playground.answers():
        keyboard.press("Enter")
    expect(playground.page.locator("#camera-open")).to_be_focused()


def test_keyboard_draws(playground, keyboard):
    keyboard.tab_to("#tab-picture")
    keyboard.press("ArrowRight")
    expect(playground.page.get_by_role("tab", name="Draw")).to_have_attribute("aria-selected", "true")
    keyboard.tab_to("#pad canvas")
    keyboard.press("ArrowLeft", "ArrowLeft", "Space", *["ArrowDown"] * 6)
    expect(playground.page.locator("#announcement")).to_have_text("Column 13, row 21")
    with playground.answers():
        keyboard.press("Space")
    drawn = playground.drawing()
    assert (drawn[14:21, 12] == 255).all()
    assert drawn[:12].max() == 0
    keyboard.tab_to("[name=width]")
    keyboard.tab_to("[name=shade]")
    keyboard.tab_to("[data-part=undo]")
    keyboard.press("Enter")
    assert playground.drawing().max() == 0


def test_keyboard_uses_a_vector_model_and_the_code_panel(playground, keyboard):
    keyboard.tab_to("#code-model")
    keyboard.tab_to("#code-tabs [aria-selected=true]")
    keyboard.press("End")
    expect(playground.page.get_by_role("tab", name="JavaScript")).to_be_focused()
    expect(playground.page.locator("#code-text")).to_contain_text("await fetch")
    keyboard.press("ArrowRight")
    expect(playground.page.get_by_role("tab", name="curl")).to_be_focused()
    keyboard.tab_to("#code pre")
    keyboard.tab_to(".feature input")
    keyboard.press("ControlOrMeta+A")
    playground.page.keyboard.type("2.5")
    with playground.answers(("blobs_mlp",)):
        keyboard.press("Enter")
    assert playground.verdict("blobs_mlp")


def test_bars_are_not_animated_with_reduced_motion(open_playground):
    script = "bar => getComputedStyle(bar).transitionDuration"
    assert open_playground().page.locator(".bar-fill").first.evaluate(script) == "0.18s"
    assert open_playground(reduced_motion="reduce").page.locator(".bar-fill").first.evaluate(script) == "0s"
