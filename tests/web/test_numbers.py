"""Models that take arrays or answer with plain numbers: their forms, answers and layout."""

from __future__ import annotations

import io
import json

import pytest
import requests
import torch
from playwright.sync_api import expect

from handlers.signature import Input, Output, Signature
from models.archiving import HANDLERS
from tests.support import packing, page_layout
from tests.support.playground import SAMPLES

# The networks are TorchScript, which torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture
def deploy_numbers(place, deploy_model, playground):
    """Registers a network of one layer that returns numbers: from 2×3 numbers one, from many 20, from a picture two."""
    examples = {
        "array": (Input("tensor", "features", (2, 3), (6,)), "tensor_classifier", 1),
        "wide": (Input("vector", "features", (40,), (40,)), "vector_classifier", 20),
        "embedded": (Input("image", "image", (6, 8), (48,), gain=1 / 255, resize="stretch"), "image_classifier", 2),
    }

    # The cached list still names a model that was just removed.
    playground.watch.expected.add(404)

    def deploy(name: str) -> None:
        spec, handler, count = examples[name]
        labels = tuple(map(str, range(count)))
        signature = Signature(name, "1.0", "Numbers.", spec, Output("none", labels))
        torch.manual_seed(4)
        layer = torch.nn.Linear(spec.network_shape[0], count)
        network = io.BytesIO()
        torch.jit.save(torch.jit.trace(layer, torch.zeros(1, *spec.network_shape)), network)
        manifest = packing.manifest(name, "1.0")
        manifest["model"]["handler"] = f"{handler}.py"
        changes = {
            "MAR-INF/MANIFEST.json": json.dumps(manifest),
            f"{handler}.py": (HANDLERS / f"{handler}.py").read_bytes(),
            "signature.json": signature.to_json(),
            "model.pt": network.getvalue(),
            "golden.npz": None,
        }
        deploy_model(packing.pack(place.settings.model_store, name, changes=changes), name)

    return deploy


def test_an_array_of_any_shape_is_answered_with_a_number(playground, deploy_numbers):
    deploy_numbers("array")
    playground.wait_for_card("array", present=True)
    card, page = playground.card("array"), playground.page
    field = card.get_by_label("2 × 3 numbers as JSON")
    assert json.loads(field.input_value()) == [[0, 0, 0], [0, 0, 0]]
    example = [[1, 2.5, -3], [0.5, 0, 40]]
    field.fill(json.dumps(example))
    with playground.answers(("array",)):
        card.get_by_role("button", name="Predict").click()
    (value,) = requests.post(f"{playground.site}/predictions/array", json=example, timeout=30).json()["values"]
    assert float(playground.verdict("array").replace(",", "")) == pytest.approx(value, rel=1e-5)
    expect(page.locator("#announcement")).to_have_text(f"array: {playground.verdict('array')}.")
    card.get_by_role("button", name="Show the code for array").click()
    page.get_by_role("tab", name="requests").click()
    expect(page.locator("#code-text")).to_contain_text(f"json={json.dumps(example)},")
    # The client would refuse the answer.
    page.get_by_role("tab", name="Python").click()
    expect(page.locator("#code-text")).not_to_contain_text("FashionClient")
    playground.watch.expected |= {400, 422}
    for text in ("[1, 2", "[1, 2, 3]"):
        field.fill(text)
        with playground.answers(("array",)):
            card.get_by_role("button", name="Predict").click()
        refused = requests.post(
            f"{playground.site}/predictions/array", text, headers={"Content-Type": "application/json"}, timeout=30
        ).json()
        expect(card.locator(".card-problem")).to_contain_text(refused["detail"][1:])


def test_many_numbers_are_shown_by_their_first_ones(playground, deploy_numbers):
    deploy_numbers("wide")
    playground.wait_for_card("wide", present=True)
    with playground.answers(("wide",)):
        playground.card("wide").get_by_role("button", name="Predict").click()
    values = requests.post(f"{playground.site}/predictions/wide", json=[0] * 40, timeout=30).json()["values"]
    assert playground.verdict("wide") == "20 numbers"
    shown = playground.bars("wide")
    assert shown.pop("…") == "8 more"
    assert [float(text) for text in shown.values()] == pytest.approx(values[:12], rel=1e-5)


def test_a_picture_is_answered_with_numbers(playground, deploy_numbers):
    deploy_numbers("embedded")
    playground.wait_for_card("embedded", present=True)
    with playground.answers(("embedded",)):
        playground.page.get_by_role("button", name="Sandal", exact=True).click()
    answer = playground.prediction("embedded", (SAMPLES / "sandal.png").read_bytes())
    assert playground.verdict("embedded") == "2 numbers"
    shown = [float(text) for text in playground.bars("embedded").values()]
    assert shown == pytest.approx(answer["values"], rel=1e-5)
    expect(playground.card("embedded").locator(".explain-button")).to_be_hidden()


def test_forms_of_numbers_fit_every_width(playground, deploy_numbers):
    for name in ("array", "wide", "embedded"):
        deploy_numbers(name)
        playground.wait_for_card(name, present=True)
    for name in ("array", "wide"):
        with playground.answers((name,)):
            playground.card(name).get_by_role("button", name="Predict").click()
    assert page_layout.faults(playground.page) == {}
