"""The API's description in Swagger UI: it shows every path, and sends requests to this service only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from serving.settings import ROOT
from tests.support.gateways import routes
from tests.support.playground import Watch

EXAMPLE = ROOT / "examples" / "ankle_boot.png"


@pytest.fixture
def docs(browser, site) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(30_000)
    watch = Watch(site)
    watch.start(page)
    page.goto(f"{site}/docs")
    page.wait_for_selector(".opblock")
    yield page
    page.close()
    watch.assert_clean()


@pytest.fixture
def predict(docs: Page) -> Locator:
    """The open form of ``POST /predictions/{model}``."""
    block = docs.locator("#operations-Predictions-predict")
    block.locator(".opblock-summary-control").click()
    block.locator(".try-out__btn").click()
    return block


def test_every_path_is_shown(docs):
    shown = [path.replace("\u200b", "") for path in docs.locator(".opblock-summary-path").all_inner_texts()]
    assert sorted(shown) == sorted(path for path, methods in routes().items() for _ in methods)


def test_every_operation_has_a_summary_and_a_group(docs):
    assert all(docs.locator(".opblock-summary-description").all_inner_texts())
    groups = docs.locator(".opblock-tag").evaluate_all("tags => tags.map(tag => tag.dataset.tag)")
    assert groups == ["Predictions", "Open Inference Protocol", "KServe v1", "Health"]


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "multipart/form-data"])
def test_a_file_is_sent(predict, content_type):
    predict.get_by_label("Request content type").select_option(content_type)
    predict.locator("input[type=file]").set_input_files(EXAMPLE)
    predict.locator(".execute").click()
    expect(predict.locator(".live-responses-table tbody .response-col_description")).to_contain_text("Ankle boot")


def test_json_is_sent(predict):
    predict.get_by_label("Request content type").select_option("application/json")
    predict.get_by_placeholder("model").fill("blobs_mlp")
    predict.locator(".execute").click()
    expect(predict.locator(".live-responses-table tbody .response-col_description")).to_contain_text("blob 2")
