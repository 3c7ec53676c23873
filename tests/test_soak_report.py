"""The report in a real browser, opened from disk: wide and narrow, light and dark.

Run by `make soak`; skipped where there is no Chromium.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from browser import Browser, installed
from conftest import ODD_NAMES
from train_program import ONE_THREAD, call

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(installed() is None, reason="there is no chromium here"),
    pytest.mark.usefixtures("threads_as_they_were"),
]

WIDTHS = (1280, 400)  # pixels
ENOUGH = 4.5  # contrast of text, WCAG 2.1, level AA
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as opened:
        yield opened


@pytest.fixture(scope="module")
def page(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two runs with names that would break a page, if a page could be broken by names."""
    folder = tmp_path_factory.mktemp("browser")
    run = Path(shutil.copytree(run_folder, folder / ("<script>alert(1)</script>" + "x" * 100)))
    values = torch.load(run / "last.pt", weights_only=True)
    values["data"]["names"] = ["<script>alert(1)</script>", ODD_NAMES[-1], "x" * 300]
    torch.save(values, run / "last.pt")
    assert call("report", run, run_folder, "--views", 1, *ONE_THREAD) == 0
    return run / "report.html"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_opens_from_disk(browser: Browser, page: Path, width: int) -> None:
    for dark in (False, True):
        browser.open(page, width, dark=dark)
        assert browser.value(OVERFLOW) <= 0
        assert browser.value("document.querySelectorAll('section').length") == 13
        assert browser.value("[...document.images].every(each => each.naturalWidth > 0)")
        back, ink = colour(browser, "backgroundColor"), colour(browser, "color")
        assert (luminance(back) < 0.1) == dark
        assert contrast(back, ink) > ENOUGH
        assert contrast(back, colour(browser, "color", "figcaption")) > ENOUGH
        assert contrast(back, colour(browser, "fill", "svg text")) > ENOUGH
    assert browser.complaints == []
    asked = [request for request in browser.requests if not request.startswith("data:")]
    assert set(asked) == {page.resolve().as_uri()}


def test_the_browser_sees_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "wrong.html"
    path.write_text("<div style='width: 500px'>wide</div><script>console.error(1)</script>")
    browser.open(path, 400, dark=False)
    assert browser.value(OVERFLOW) > 0
    assert len(browser.complaints) == 1


def colour(browser: Browser, which: str, of: str = "body") -> list[float]:
    """Red, green and blue, 0 to 255, of the first such element."""
    text = browser.value(f"getComputedStyle(document.querySelector('{of}')).{which}")
    return [float(part) for part in text.removeprefix("rgb(").removesuffix(")").split(",")]


def luminance(rgb: list[float]) -> float:
    """WCAG 2.1, relative luminance."""
    shares = [part / 255 for part in rgb]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(f * s for f, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: list[float], other: list[float]) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
