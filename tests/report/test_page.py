"""The page in a real browser: it opens offline, says nothing to the console, and fits a phone and a screen."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from PIL import ImageColor
from tests.report.browser import Browser

from flyweight.report import Facts, build_report
from flyweight.report.build import SECTIONS
from flyweight.report.sample import sample_facts

PLOTS = ("plot-pareto", "plot-accuracy", "plot-loss", "plot-confusion", "plot-calibration")
EVIL = ("</script><script>window.hacked=1</script>", '"><img src=x onerror="window.hacked=1">', "<b>bold</b>",
        "{{ 7*7 }}", "x" * 300)  # fmt: skip


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(sample_facts(), tmp_path_factory.mktemp("sample")).html


def assert_fits(browser: Browser, width: int) -> None:
    assert browser.run("document.documentElement.scrollWidth") <= width
    # A plot or picture that is cut off makes no scroll bar, so each is asked on its own.
    wide = "[...document.querySelectorAll('section, .plot, svg.main-svg, img, pre, h1')].filter("
    assert (
        browser.run(wide + f"e => e.getBoundingClientRect().right > {width} + 0.5).map(e => e.className + e.id)") == []
    )


def assert_names_apart(browser: Browser) -> None:
    """Neighbouring names along the axes of the matrix do not run into each other."""
    boxes = "[...document.querySelectorAll('#plot-confusion .ytick text')].map(t => t.getBoundingClientRect())"
    room = browser.run(f"(b => b.slice(1).map((r, i) => r.top - b[i].bottom))({boxes})")
    assert room
    assert min(room) >= -2  # a box is a little taller than its letters
    # Names that lie at 45 degrees need their own height times the root of 2 from one to the next.
    lefts = browser.run("[...document.querySelectorAll('#plot-confusion .xtick text')].map("
                        "t => t.getBoundingClientRect().right)")  # fmt: skip
    size = browser.run("parseFloat(getComputedStyle(document.querySelector('#plot-confusion .xtick text')).fontSize)")
    assert min(b - a for a, b in itertools.pairwise(lefts)) >= size


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_is_silent_and_asks_the_network_for_nothing(
    browser: Browser, sample: Path, width: int, dark: bool
) -> None:
    browser.open(sample, width, dark=dark)
    assert_fits(browser, width)
    assert browser.problems() == []
    assert browser.requests() == []


def test_every_section_is_there_and_every_plot_is_drawn(browser: Browser, sample: Path) -> None:
    browser.open(sample, 1280)
    headings = browser.run(
        "[...document.querySelectorAll('section')].map(s => [s.id, s.querySelector('h2').textContent])"
    )
    assert dict(headings) == SECTIONS
    assert browser.run("[...document.querySelectorAll('.absent')].length") == 0
    for plot in PLOTS:
        assert browser.run(f"document.querySelectorAll('#{plot} svg.main-svg').length") > 0, plot


def test_the_browser_would_notice_an_error_a_request_and_an_overflow(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<html data-drawn=0><body><div style='width:900px'>wide</div><img src='http://127.0.0.1:9/x.png'>"
        "<script>console.error('oh'); throw new Error('no')</script>"
    )
    browser.open(page, 390)
    assert browser.run("document.documentElement.scrollWidth") > 390
    assert len(browser.problems()) >= 2
    assert browser.requests() == ["http://127.0.0.1:9/x.png"]


def test_class_names_with_markup_stay_words(browser: Browser, tmp_path: Path) -> None:
    browser.open(build_report(sample_facts(EVIL), tmp_path).html, 390)
    assert browser.run("typeof window.hacked") == "undefined"
    names = browser.run("[...document.querySelectorAll('#classes tbody tr')].map(r => r.cells[0].textContent)")
    assert tuple(names) == EVIL
    assert (
        browser.run("[...document.querySelectorAll('#plot-confusion .xtick text')].map(t => t.textContent)[2]")
        == EVIL[2]
    )
    assert_fits(browser, 390)
    assert browser.problems() == []


@pytest.mark.parametrize("size", [2, 15, 200])
def test_few_and_many_classes_fit_the_phone(browser: Browser, tmp_path: Path, size: int) -> None:
    browser.open(build_report(sample_facts([f"n{i:08} a rather long name" for i in range(size)]), tmp_path).html, 390)
    assert_fits(browser, 390)
    assert browser.run("document.querySelectorAll('#classes tbody tr').length") == size
    assert_names_apart(browser)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_counts_of_the_diagonal_stand_out_from_their_colour(browser: Browser, sample: Path, dark: bool) -> None:
    browser.open(sample, 1280, dark=dark)
    written = browser.run("[...document.querySelectorAll('#plot-confusion .heatmap-label text')].map("
                          "t => [t.textContent, getComputedStyle(t).fill])")  # fmt: skip
    counts = sample_facts().confusion
    biggest = str(max(counts[i][i] for i in range(len(counts))))
    ink = next(colour for text, colour in written if text == biggest)
    cell = browser.run("getComputedStyle(document.documentElement).getPropertyValue('--scale1').trim()")
    assert contrast(ink, cell) >= 4.5  # WCAG AA


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [c / 255 for c in ImageColor.getrgb(colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_report_of_nothing_still_has_every_section_and_says_why(browser: Browser, tmp_path: Path) -> None:
    browser.open(build_report(Facts(title="nothing"), tmp_path).html, 390)
    assert browser.run("[...document.querySelectorAll('section')].map(s => s.id)") == list(SECTIONS)
    assert browser.run("document.querySelectorAll('.absent').length") == len(SECTIONS)
    assert browser.problems() == []


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_it_round(browser: Browser, sample: Path) -> None:
    browser.open(sample, 1280)
    click = "document.querySelectorAll('#classes th button')[1].click()"
    recalls = "[...document.querySelectorAll('#classes tbody tr')].map(r => Number(r.cells[1].dataset.value))"
    browser.run(click)
    down = browser.run(recalls)
    browser.run(click)
    assert down == sorted((row.recall for row in sample_facts().per_class), reverse=True)
    assert browser.run(recalls) == down[::-1]


def test_the_page_prints(browser: Browser, sample: Path) -> None:
    browser.open(sample, 1280, dark=True)
    printed = browser.pdf()
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") + printed.count(b"/Type /Page/") >= 2
