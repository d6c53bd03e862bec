"""The cards: probabilities, explanations, times, errors as sentences, and models that appear and disappear."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import zipfile
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Route, expect

from tests.support import packing
from tests.support.playground import IMAGE_MODELS, SAMPLES, assert_shows_probability, pixels


def _sentence(detail: str) -> str:
    return detail[0].upper() + detail[1:].rstrip(".") + "."


def test_cards_are_side_by_side_with_time_and_bars(playground):
    boxes = [playground.card(model).bounding_box() for model in IMAGE_MODELS]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    for model in IMAGE_MODELS:
        answer = playground.prediction(model, (SAMPLES / "t-shirt-top.png").read_bytes())
        card = playground.card(model)
        assert re.fullmatch(r"\d+(\.\d+)? m?s round trip", card.locator(".card-time").inner_text())
        widths = card.locator(".bar-fill").evaluate_all("bars => bars.map(bar => parseFloat(bar.style.width) / 100)")
        assert widths == pytest.approx(list(answer["probabilities"].values()), abs=1e-6)


def test_answers_are_announced(playground):
    playground.choose_sample("Sneaker")
    announced = playground.page.locator("#announcement").inner_text()
    for model in IMAGE_MODELS:
        assert f"{model}: {playground.verdict(model)}, " in announced


def test_a_picture_unlike_the_training_data_is_not_sure_and_a_sample_is(playground):
    for model in IMAGE_MODELS:
        expect(playground.card(model).locator(".doubt")).to_be_hidden()
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)).save(noise, "png")
    playground.choose_file("noise.png", noise.getvalue(), "image/png")
    for model in IMAGE_MODELS:
        answer = playground.prediction(model, noise.getvalue())
        doubt = playground.card(model).locator(".doubt")
        expect(doubt).to_be_visible()
        for text in ("Not sure", "unlike those that the model learned from", f"{answer['ood']:.2f}", "below 0."):
            expect(doubt).to_contain_text(text)
    expect(playground.page.locator("#announcement")).to_contain_text("Not sure")
    playground.choose_sample("Sneaker")
    for model in IMAGE_MODELS:
        expect(playground.card(model).locator(".doubt")).to_be_hidden()


def test_version_is_shown(playground):
    for model in IMAGE_MODELS:
        described = requests.get(f"{playground.site}/v2/models/{model}", timeout=30).json()
        expect(playground.card(model).locator(".card-version")).to_have_text(described["versions"][0])


def test_explanation_on_request_and_for_the_next_picture(playground):
    model = "fashion_convnet"
    card = playground.card(model)
    heat = card.locator(".explain-button img")
    expect(heat).to_be_hidden()
    explain = card.get_by_role("button", name=f"Explain the answer of {model}")
    explain.click()
    expect(heat).to_be_visible()
    expect(explain).to_have_attribute("aria-pressed", "true")
    _assert_heat_map(playground, model, "t-shirt-top.png")
    first = heat.get_attribute("src")
    playground.choose_sample("Sandal")
    expect(heat).not_to_have_attribute("src", first)
    _assert_heat_map(playground, model, "sandal.png")
    # Only this model's explanation was requested.
    expect(playground.card("fashion_mlp").locator(".explain-button img")).to_be_hidden()
    explain.click()
    expect(heat).to_be_hidden()


def _assert_heat_map(playground, model, sample):
    file = requests.post(
        f"{playground.site}/explanations/{model}",
        data=(SAMPLES / sample).read_bytes(),
        headers={"Content-Type": "image/png", "Accept": "image/png"},
        timeout=60,
    ).content
    shown = (
        playground.card(model)
        .locator(".explain-button img")
        .evaluate(
            """async image => {
            await image.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
            return [...data].filter((_, index) => index % 4 < 3);
        }"""
        )
    )
    assert shown == pixels(file).ravel().tolist()


def test_error_shows_the_detail_of_the_problem_as_a_sentence(playground):
    playground.watch.expected.add(415)
    playground.choose_file("notes.txt", b"This is not a picture.", "text/plain")
    for model in IMAGE_MODELS:
        problem = playground.prediction(model, b"This is not a picture.", "text/plain")
        shown = playground.card(model).locator(".card-problem").first
        expect(shown).to_contain_text(problem["title"])
        expect(shown).to_contain_text(_sentence(problem["detail"]))
        expect(playground.card(model).locator(".card-answer")).to_be_hidden()
    expect(playground.page.get_by_text("No preview for this file")).to_be_visible()
    # The page continues with the next picture.
    playground.choose_sample("Bag")
    for model in IMAGE_MODELS:
        expect(playground.card(model).locator(".card-problem").first).to_be_hidden()
        assert playground.verdict(model)


def test_damaged_picture_shows_an_error(playground):
    playground.watch.expected.add(400)
    damaged = (SAMPLES / "bag.png").read_bytes()[:200]
    playground.choose_file("bag.png", damaged, "image/png")
    for model in IMAGE_MODELS:
        problem = playground.prediction(model, damaged)
        assert problem["status"] == 400
        expect(playground.card(model).locator(".card-problem").first).to_contain_text(_sentence(problem["detail"]))


def test_newest_picture_wins(playground):
    """A late answer to an earlier picture must not replace the answer to a later one."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    playground.page.route("**/predictions/fashion_mlp?*", hold, times=1)
    playground.page.get_by_role("button", name="Sneaker", exact=True).click()
    playground.page.wait_for_function("() => document.querySelectorAll('[aria-busy=true]').length > 0")
    playground.choose_sample("Trouser")
    trouser = {model: playground.prediction(model, (SAMPLES / "trouser.png").read_bytes()) for model in IMAGE_MODELS}
    sneaker = playground.prediction("fashion_mlp", (SAMPLES / "sneaker.png").read_bytes())
    # A correct page has aborted this request, so that fulfilling it fails.
    with suppress(PlaywrightError):
        held[0].fulfill(json=sneaker)
    # The page receives a later answer only after that one.
    playground.page.evaluate("fetch('healthz').then(response => response.text())")
    for model in IMAGE_MODELS:
        playground.assert_shows(model, trouser[model])


def test_unreachable_service_is_reported_and_retried(playground):
    page = playground.page
    # While the page's clock is stopped, it does not retry by itself.
    page.clock.install()
    page.clock.pause_at(datetime.now() + timedelta(hours=1))
    page.reload()
    playground.wait_until_open()
    expect(page.locator("#service")).to_contain_text("4 models")
    playground.watch.expected.add(0)
    page.context.set_offline(True)
    with page.expect_event("requestfailed"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    notice = page.locator("#unreachable")
    expect(notice).to_contain_text(f"The service at {playground.site} cannot be reached.")
    expect(page.locator("#service")).to_contain_text("No answer")
    # Earlier answers stay visible.
    expect(playground.card("fashion_mlp").locator(".verdict")).to_be_visible()
    page.context.set_offline(False)
    notice.get_by_role("button", name="Try again").click()
    expect(notice).to_be_hidden()
    expect(page.locator("#service")).to_contain_text("4 models")


def test_vector_model_classifies_numbers(playground):
    values = [0.5, -1.5, 3.0, 2.0]
    card = playground.card("blobs_mlp")
    for number, value in enumerate(values, 1):
        card.get_by_label(f"Feature {number}").fill(str(value))
    with playground.answers(("blobs_mlp",)):
        card.get_by_role("button", name="Predict").click()
    answer = requests.post(f"{playground.site}/predictions/blobs_mlp", json=values, timeout=30).json()
    assert playground.verdict("blobs_mlp") == answer["label"]
    for label, text in playground.bars("blobs_mlp").items():
        assert_shows_probability(text, answer["probabilities"][label])


def test_every_independent_label_that_applies_is_shown(playground):
    card = playground.card("sigmoid_net")
    for values, count in (((2, 2, -2), 2), ((-2, -2, 2), 0)):
        for number, value in enumerate(values, 1):
            card.get_by_label(f"Feature {number}").fill(str(value))
        with playground.answers(("sigmoid_net",)):
            card.get_by_role("button", name="Predict").click()
        answer = requests.post(f"{playground.site}/predictions/sigmoid_net", json=values, timeout=30).json()
        assert len(answer["labels"]) == count
        assert playground.verdict("sigmoid_net") == (", ".join(answer["labels"]) or "No label applies")
        assert card.locator(".bars .chosen").count() == count


def test_new_models_appear_without_a_reload(playground, place, deploy_model):
    """A new image model classifies the current picture, and a new vector model has its fields."""
    page = playground.page
    # The cached list still names a model that was just removed.
    playground.watch.expected.add(404)
    playground.choose_sample("Sandal")
    store = place.settings.model_store
    deploy_model(_renamed(store / "fashion_convnet.mar", "fashion_again"), "fashion_again")
    deploy_model(packing.pack(store), "tiny")
    playground.wait_for_card("fashion_again", present=True)
    playground.wait_for_card("tiny", present=True)
    expect(playground.card("fashion_again").locator(".verdict strong")).to_be_visible()
    expect(page.locator("#service")).to_contain_text("6 models")
    answer = playground.prediction("fashion_again", (SAMPLES / "sandal.png").read_bytes())
    playground.assert_shows("fashion_again", answer)
    expect(playground.card("tiny").get_by_role("spinbutton")).to_have_count(packing.FEATURES)
    assert page.locator("#code-model option").all_inner_texts().count("fashion_again") == 1
    # All three classify the next picture, and the card of a removed model disappears.
    with playground.answers((*IMAGE_MODELS, "fashion_again")):
        page.get_by_role("button", name="Bag", exact=True).click()
    requests.delete(f"{place.management}/models/fashion_again", timeout=60)
    playground.wait_for_card("fashion_again", present=False)
    expect(playground.card("fashion_mlp")).to_be_visible()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_only_the_most_probable_of_many_labels_are_shown(playground, place, deploy_model):
    labels = tuple(f"label {number}" for number in range(30))
    signature = packing.signature("many", "1.0")
    signature = dataclasses.replace(signature, output=dataclasses.replace(signature.output, labels=labels))
    network = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(packing.FEATURES, len(labels)), torch.zeros(1, 3)), network)
    changes = {"signature.json": signature.to_json().encode(), "model.pt": network.getvalue(), "golden.npz": None}
    deploy_model(packing.pack(place.settings.model_store, "many", changes=changes), "many")
    playground.wait_for_card("many", present=True)
    with playground.answers(("many",)):
        playground.card("many").get_by_role("button", name="Predict").click()
    answer = requests.post(f"{playground.site}/predictions/many?top_k=12", json=[0, 0, 0], timeout=30).json()
    assert list(playground.bars("many")) == list(answer["probabilities"])


def test_missing_image_models_and_undescribed_models_are_reported(playground):
    """The list has no image model, and names a model that the service does not know."""
    page = playground.page
    playground.watch.expected.add(404)
    page.route("**/v1/models", lambda route: route.fulfill(json={"models": ["blobs_mlp", "unknown"]}))
    page.reload()
    expect(page.locator("#no-image-models")).to_be_visible()
    expect(playground.card("blobs_mlp")).to_be_visible()
    problem = requests.get(f"{playground.site}/v2/models/unknown", timeout=30).json()
    expect(page.locator("#other-models")).to_have_text(f"unknown: {_sentence(problem['detail'])}")
    # An image model that appears classifies the current picture.
    page.unroute("**/v1/models")
    playground.wait_for_card("fashion_mlp", present=True)
    expect(playground.card("fashion_mlp").locator(".verdict strong")).to_be_visible()
    expect(page.locator("#no-image-models")).to_be_hidden()


def _renamed(archive: Path, model: str) -> Path:
    """A copy of an archive under another model's name."""
    target = archive.with_name(f"{model}.mar")
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            if name == "MAR-INF/MANIFEST.json":
                manifest = json.loads(content)
                manifest["model"]["modelName"] = model
                content = json.dumps(manifest).encode()
            elif name == "signature.json":
                content = json.dumps({**json.loads(content), "model": model}).encode()
            copy.writestr(name, content)
    return target
