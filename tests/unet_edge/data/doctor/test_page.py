"""The page and the sheet, of real pairs with planted faults and hostile names."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from tests.browser import browser, check_page
from unet_edge.data.doctor.page import write_page
from unet_edge.data.doctor.pictures import sheet_pairs, write_sheet

NAME = '<script>alert(1)</script>&"x'


@pytest.fixture
def faulty(folders, diagnosed, brain, tmp_path):
    """Brain slices: one upside down, one twice, one with a name that is HTML, one that cannot be read."""
    for number, pair in enumerate(brain):
        name = NAME.replace("/", "") if number == 3 else pair.name
        Image.open(pair.image).save(folders[0] / f"{name}.png")
        mask = np.asarray(Image.open(pair.mask))
        Image.fromarray(mask[::-1] if number == 7 else mask).save(folders[1] / f"{name}.png")
    Image.open(brain[5].image).save(folders[0] / "twin.png")
    Image.open(brain[5].mask).save(folders[1] / "twin.png")
    (folders[0] / "broken.png").write_bytes((folders[0] / "twin.png").read_bytes()[:900])
    Image.open(brain[5].mask).save(folders[1] / "broken.png")
    listed = tmp_path / "val.txt"
    listed.write_text(f"twin\n{brain[7].name}\n")
    return diagnosed(folders, val_list=listed)


def test_a_page_that_a_browser_likes(faulty, tmp_path):
    page = tmp_path / "page.html"
    write_page(faulty, page)
    assert check_page(page) == []
    with browser() as tab:
        for dark in (False, True):
            tab.open(page, 390, dark=dark)
            assert not tab.complaints
        shown = tab.evaluate("document.body.innerText")
    assert "mirrored" in shown
    assert "the same file" in shown
    assert "broken.png" in shown
    assert "<script>alert(1)" in shown  # the name, as text


def test_the_page_holds_everything_and_runs_nothing(faulty, tmp_path):
    page = tmp_path / "page.html"
    write_page(faulty, page)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert all(address.startswith("data:") for address in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert "default-src 'none'" in text


def test_the_suspicious_come_first(faulty, brain, tmp_path):
    shown = sheet_pairs(faulty)
    assert {brain[7].name, "twin"} <= {pair.name for pair, kinds in shown[:6] if kinds}
    assert len({pair for pair, _ in shown}) == len(shown) == len(faulty.looks)
    sheet = tmp_path / "sheet.png"
    write_sheet(faulty, sheet)
    with Image.open(sheet) as picture:
        assert picture.width > 1000
        colors = {color for _, color in picture.convert("RGB").getcolors(1 << 24)}
    assert (179, 38, 30) in colors  # the frame of a suspicious pair
