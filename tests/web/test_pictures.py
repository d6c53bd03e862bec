"""Each way to choose a picture. The cards must show the answer that a program gets for the same picture."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from models.datasets import fashion_mnist
from models.fashion_mnist import LABELS
from tests.support import image_files, photographs
from tests.support.playground import IMAGE_MODELS, SAMPLES, photograph, pixels

# Every second column white, and a gray foot, so that mirroring, shifting and resizing all change the picture.
STRIPES = np.zeros((28, 28), np.uint8)
STRIPES[4:20, 6:22:2] = 255
STRIPES[20:24, 6:22] = 120


def test_test_images_are_the_first_of_each_class_in_the_test_set(playground):
    dataset = fashion_mnist()
    images, labels = dataset.test_inputs.numpy(), dataset.test_targets.numpy()
    buttons = playground.page.locator("#samples img")
    assert buttons.evaluate_all("images => images.map(image => image.alt)") == list(LABELS)
    files = buttons.evaluate_all("images => images.map(image => image.src.split('/').pop())")
    for index, name in enumerate(files):
        file = (SAMPLES / name).read_bytes()
        np.testing.assert_array_equal(pixels(file), images[np.argmax(labels == index)])
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) <= 20_000


def test_page_starts_with_a_classified_test_image(playground):
    for model in IMAGE_MODELS:
        playground.assert_shows(model, playground.prediction(model, (SAMPLES / "t-shirt-top.png").read_bytes()))


def test_the_background_of_a_photograph_is_dimmed_and_that_of_other_pictures_is_not(playground):
    shade = playground.page.locator(".preview-shade")
    playground.choose_file("shirt.png", image_files.save(photographs.photograph()), "image/png")
    expect(shade).to_be_visible()
    frame = Image.open(io.BytesIO(playground.page.locator(".preview-frame").screenshot())).convert("RGB")
    # The photograph, 180 x 240 pixels, is as high as the frame. Its item is at columns 40 to 139 and rows 50 to 199.
    scale = frame.height / 240
    left = (frame.width - 180 * scale) / 2

    def color(x: float, y: float) -> Any:
        box = left + (x - 4) * scale, (y - 4) * scale, left + (x + 4) * scale, (y + 4) * scale
        return np.asarray(frame.crop(box)).mean((0, 1))

    np.testing.assert_allclose(color(90, 120), (40, 60, 150), atol=6)
    # Of the floor two fifths are left.
    assert color(90, 20).max() < 80
    playground.choose_sample("Ankle boot")
    expect(shade).to_be_hidden()


def test_chosen_test_image(playground):
    playground.choose_sample("Ankle boot")
    for model in IMAGE_MODELS:
        playground.assert_shows(model, playground.prediction(model, (SAMPLES / "ankle-boot.png").read_bytes()))
    chosen = playground.page.locator("#samples [aria-pressed=true]")
    expect(chosen).to_have_count(1)
    expect(chosen).to_have_attribute("title", "Ankle boot")


def test_chosen_file(playground):
    playground.choose_file("trousers.jpg", photograph(), "image/jpeg")
    for model in IMAGE_MODELS:
        playground.assert_shows(model, playground.prediction(model, photograph(), "image/jpeg"))
    expect(playground.page.locator("#preview figcaption")).to_contain_text("trousers.jpg")
    expect(playground.page.locator("#samples [aria-pressed=true]")).to_have_count(0)


def test_same_file_chosen_again_after_another_picture(playground):
    playground.choose_file("stripes.png", image_files.save(STRIPES), "image/png")
    playground.choose_sample("Bag")
    playground.choose_file("stripes.png", image_files.save(STRIPES), "image/png")
    np.testing.assert_array_equal(playground.model_input("fashion_mlp"), STRIPES)


def test_file_that_only_the_service_reads_is_shown_as_the_models_receive_it(playground):
    # Stands for a file of a format that this browser does not display.
    playground.page.route("**/predictions/**", lambda route: route.continue_(post_data=image_files.save(STRIPES)))
    playground.choose_file("IMG_1.heic", b"\0\0\0\x18ftypheic", "image/heic")
    image = playground.page.locator("#preview img")
    expect(image).to_be_visible()
    expect(image).to_have_class("pixels")
    np.testing.assert_array_equal(pixels(base64.b64decode(image.get_attribute("src").partition(",")[2])), STRIPES)
    caption = playground.page.locator("#preview figcaption")
    expect(caption).to_have_text("IMG_1.heic, 12 bytes, as the models receive it")
    playground.choose_sample("Bag")
    expect(caption).not_to_contain_text("as the models receive it")


def test_file_dialog_offers_every_picture_format(playground):
    # Chromium has no media type for the suffixes, so that image/* would hide such files.
    assert playground.page.locator("#file").get_attribute("accept") == "image/*,.heic,.heif,.avif"


def test_dropped_file(playground, tmp_path):
    file = tmp_path / "dropped.png"
    file.write_bytes(image_files.save(STRIPES))
    devtools = playground.page.context.new_cdp_session(playground.page)
    # The events of a file that is dragged from the desktop.
    data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    with playground.answers():
        for kind in ("dragEnter", "dragOver"):
            devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 700, "y": 500, "data": data})
        expect(playground.page.get_by_text("Drop the picture anywhere")).to_be_visible()
        devtools.send("Input.dispatchDragEvent", {"type": "drop", "x": 700, "y": 500, "data": data})
    expect(playground.page.get_by_text("Drop the picture anywhere")).to_be_hidden()
    for model in IMAGE_MODELS:
        playground.assert_shows(model, playground.prediction(model, image_files.save(STRIPES)))


def test_dropped_text_is_reported_and_changes_nothing(playground):
    before = playground.verdict("fashion_mlp")
    devtools = playground.page.context.new_cdp_session(playground.page)
    data = {"items": [{"mimeType": "text/plain", "data": "a boot"}], "files": [], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 700, "y": 500, "data": data})
    expect(playground.page.locator("#input-note")).to_contain_text("contains no file")
    assert playground.verdict("fashion_mlp") == before


def test_pasted_picture(playground):
    playground.page.evaluate(
        """async base64 => {
            const bytes = Uint8Array.from(atob(base64), character => character.charCodeAt(0));
            const picture = new Blob([bytes], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
        }""",
        base64.b64encode(image_files.save(STRIPES)).decode(),
    )
    with playground.answers():
        playground.page.keyboard.press("Control+V")
    for model in IMAGE_MODELS:
        np.testing.assert_array_equal(playground.model_input(model), STRIPES)


def test_pasted_text_is_reported_and_changes_nothing(playground):
    before = playground.verdict("fashion_mlp")
    playground.page.evaluate("navigator.clipboard.writeText('a boot')")
    playground.page.keyboard.press("Control+V")
    expect(playground.page.locator("#input-note")).to_have_text("The clipboard contains no picture.")
    assert playground.verdict("fashion_mlp") == before


def test_photo_taken_with_the_camera(playground):
    page = playground.page
    page.get_by_role("button", name="Take a photo").click()
    dialog = page.get_by_role("dialog", name="Take a photo")
    with playground.answers():
        dialog.get_by_role("button", name="Take", exact=True).click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#preview figcaption")).to_contain_text("Photo")
    assert page.locator("#preview img").evaluate("image => image.naturalWidth === image.naturalHeight")
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the picture").click()
    photo = download.value.path().read_bytes()
    for model in IMAGE_MODELS:
        playground.assert_shows(model, playground.prediction(model, photo, "image/jpeg"))
    assert page.locator("#camera video").evaluate("video => video.srcObject") is None


def test_forbidden_camera_is_reported(playground):
    page = playground.page
    playground.forbid("camera")
    page.get_by_role("button", name="Take a photo").click()
    dialog = page.get_by_role("dialog", name="Take a photo")
    expect(dialog.get_by_role("alert")).to_contain_text("blocks the camera")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_phone_takes_the_photo_with_its_own_camera(open_playground):
    playground = open_playground(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = playground.page
    with playground.answers():
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Take a photo").tap()
        assert chooser.value.element.get_attribute("capture") == "environment"
        chooser.value.set_files({"name": "IMG_1.jpg", "mimeType": "image/jpeg", "buffer": photograph()})
    for model in IMAGE_MODELS:
        playground.assert_shows(model, playground.prediction(model, photograph(), "image/jpeg"))


def test_drawing_is_answered_while_it_is_drawn(playground):
    page = playground.page
    page.get_by_role("tab", name="Draw").click()
    page.get_by_label("Broad").check()
    box = page.locator("#pad canvas").bounding_box()
    assert box

    def move(x: float, y: float) -> None:
        page.mouse.move(box["x"] + box["width"] * x / 28, box["y"] + box["height"] * y / 28, steps=8)

    with playground.answers():
        move(14, 4)
        page.mouse.down()
        move(14, 14)
        # The pen is still down.
        page.wait_for_function("() => document.querySelector('.view img').src.startsWith('data:')")
        move(14, 24)
        page.mouse.up()
    drawn = playground.drawing()
    assert drawn[14, 14] == 255
    assert drawn[14, 5] == 0
    for model in IMAGE_MODELS:
        np.testing.assert_array_equal(playground.model_input(model), drawn)


def test_newest_drawing_wins(playground):
    """A drawing that is encoded late must not replace a newer drawing."""
    page = playground.page
    page.get_by_role("tab", name="Draw").click()
    page.evaluate(
        """() => {
            const canvas = document.querySelector("#pad canvas");
            const toBlob = canvas.toBlob.bind(canvas);
            const late = [];
            // Deliver the first file after the second one.
            canvas.toBlob = (deliver, type) => toBlob(blob => {
                if (late.push(() => deliver(blob)) === 2) late.reverse().forEach(each => each());
            }, type);
        }"""
    )
    with playground.answers():
        page.locator("#pad canvas").click(position={"x": 100, "y": 100})
    np.testing.assert_array_equal(playground.model_input("fashion_mlp"), playground.drawing())


def test_strokes_are_undone_one_by_one(playground):
    page = playground.page
    page.get_by_role("tab", name="Draw").click()
    canvas = page.locator("#pad canvas")
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_disabled()
    with playground.answers():
        canvas.click(position={"x": 40, "y": 40})
    first = playground.drawing()
    page.get_by_label("Light gray").check()
    with playground.answers():
        canvas.click(position={"x": 200, "y": 200})
    second = playground.drawing()
    assert second.max() == 255
    assert 170 in second
    with playground.answers():
        undo.click()
    np.testing.assert_array_equal(playground.drawing(), first)
    np.testing.assert_array_equal(playground.model_input("fashion_mlp"), first)
    page.get_by_role("button", name="Clear").click()
    assert playground.drawing().max() == 0
    undo.click()
    np.testing.assert_array_equal(playground.drawing(), first)


def test_black_pen_erases(playground):
    page = playground.page
    page.get_by_role("tab", name="Draw").click()
    canvas = page.locator("#pad canvas")
    with playground.answers():
        canvas.click(position={"x": 100, "y": 100})
    assert playground.drawing().max() == 255
    page.get_by_label("Black, erases").check()
    page.get_by_label("Broad").check()
    canvas.click(position={"x": 100, "y": 100})
    assert playground.drawing().max() == 0


def test_tabs_switch_between_the_drawing_and_the_chosen_picture(playground):
    page = playground.page
    playground.choose_sample("Bag")
    page.get_by_role("tab", name="Draw").click()
    with playground.answers():
        page.locator("#pad canvas").click(position={"x": 100, "y": 100})
    drawn = playground.drawing()
    expect(page.locator("#samples [aria-pressed=true]")).to_have_count(0)
    with playground.answers():
        page.get_by_role("tab", name="Picture").click()
    np.testing.assert_array_equal(playground.model_input("fashion_mlp"), pixels((SAMPLES / "bag.png").read_bytes()))
    with playground.answers():
        page.get_by_role("tab", name="Draw").click()
    np.testing.assert_array_equal(playground.model_input("fashion_mlp"), drawn)
