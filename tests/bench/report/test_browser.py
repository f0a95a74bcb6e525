"""The browser's own eyes: each fault that it must see, planted."""

from __future__ import annotations

import pytest

from tests import browser
from tests.browser import check_page

GOOD = '<figure id="f"><svg viewBox="0 0 300 100" style="width:300px">{}</svg></figure>'
FAULTS = {
    "console": ("<script>console.error('oh')</script>", "console: ['oh']"),
    "exception": ("<script>throw new Error('ah')</script>", "exception"),
    "policy": (
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\"><img src=x.png>",
        "Content Security Policy",
    ),
    "wide page": ('<div style="width:1400px">x</div>', "1280 px: the page is 14"),
    "wide on a phone": ('<div style="width:600px">x</div>', "390 px: the page is 6"),
    "empty figure": ('<figure id="none" style="height:0"></figure>', "figure none"),
    "text outside": (GOOD.format('<text x="290" y="50">too far right</text>'), "leaves its drawing"),
    "overlap": (GOOD.format('<text x="50" y="50">one label</text><text x="70" y="52">another</text>'), "overlap"),
    "tiny": (GOOD.format('<text x="50" y="50" style="font-size:5px">small</text>'), "px small"),
}


def page(tmp_path, body):
    path = tmp_path / "page.html"
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>t</title><link rel=icon href=data:,>"
        f"<meta name=viewport content='width=device-width, initial-scale=1'>{body}",
        "utf-8",
    )
    return path


@pytest.mark.parametrize(("body", "complaint"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_seen(tmp_path, body, complaint):
    problems = check_page(page(tmp_path, body), widths=(1280, 390))
    assert any(complaint in problem for problem in problems), problems


def test_a_good_page_has_no_fault(tmp_path):
    assert check_page(page(tmp_path, GOOD.format('<text x="50" y="50">fine</text>'))) == []


def test_without_a_browser_the_test_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(browser, "NAMES", ("no-such-browser",))
    with pytest.raises(pytest.skip.Exception, match="no browser on this machine: looked for no-such-browser"):
        check_page(page(tmp_path, ""))
