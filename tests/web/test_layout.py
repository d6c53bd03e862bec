"""No element of the page overlaps or overflows another, at any width, with any file name and any shape of picture."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.support import image_files, page_layout

NAMES = ("a.png", "3f2b6c1e-9d84-4a57-b0c3-7e1f5a2d8b90_3f2b6c1e-9d84-4a57-b0c3-7e1f5a2d8b90.png")
SHAPES = ((300, 300), (40, 1200), (1200, 40))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES, ids=["short name", "long name"])
def test_nothing_overlaps_or_overflows(open_playground, name, shape):
    playground = open_playground(viewport={"width": 1280, "height": 900})
    page = playground.page
    playground.choose_file(name, image_files.save(Image.new("RGB", shape, "navy")), "image/png")
    assert page_layout.faults(page) == {}


@pytest.mark.parametrize("tab", ["Draw", "Picture"])
def test_nothing_overlaps_or_overflows_in_a_tab(open_playground, tab):
    page = open_playground(viewport={"width": 1280, "height": 900}).page
    page.get_by_role("tab", name=tab).click()
    assert page_layout.faults(page) == {}
