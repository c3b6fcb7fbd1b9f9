"""The report's page: what a table shows, and what a reader meets in a real browser, wide, narrow, light and dark."""

import math

import numpy
import pandas
import pytest

from utils.core.check import Check, Report
from utils.core.plots import canvas


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.1235"),
        (0.5, "0.5"),
        (1234.56, "1,235"),
        (12345.6, "12,350"),
        (9999.96, "10,000"),
        (1.5e12 + 0.25, "1.5e+12"),
        (0.0000123456, "1.235e-05"),
        (50257.0, "50,257"),  # a whole number in a column of floats
        (-0.0, "0"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (10_123_456, "10,123,456"),
        (numpy.float32(0.1), "0.1"),
        (True, "yes"),
        (None, "–"),
        ("<b>", "&lt;b&gt;"),
    ],
)
def test_a_value_is_shown_for_a_reader(value, shown):
    page = Check("c", "pass", "s", table=pandas.DataFrame({"x": pandas.Series([value], dtype=object)}))._repr_html_()
    assert f"<div>{shown}</div></td></tr></tbody>" in page


def test_the_index_is_shown_unless_it_only_counts():
    table = pandas.DataFrame({"x": [1, 2]})
    assert Check("c", "pass", "s", table=table)._repr_html_().count("<div>") == 2
    named = table.rename_axis("step")
    assert Check("c", "pass", "s", table=named)._repr_html_().count("<div>") == 4
    kept = table[table["x"] > 1]  # its index is [1]: which row it was
    assert Check("c", "pass", "s", table=kept)._repr_html_().count("<div>") == 2


def test_a_table_without_rows_or_columns_is_shown():
    for table in (pandas.DataFrame({"x": []}), pandas.DataFrame(), pandas.DataFrame(index=["a"])):
        assert "<details" in Check("c", "pass", "s", table=table)._repr_html_()


def test_failures_and_warnings_are_open_and_the_rest_is_folded():
    table = pandas.DataFrame({"x": [1]})
    for status in ("pass", "warn", "fail", "skip"):
        page = Check("c", status, "s", table=table)._repr_html_()
        assert ("<details open>" in page) == (status in ("warn", "fail"))
    assert "<details" not in Check("c", "fail", "s")._repr_html_()


def figure(title, **size):
    with canvas(**size) as axes:
        first = numpy.atleast_1d(axes).flat[0]
        first.plot([1, 3, 2])
        first.set(title=title)
    return first.figure


def full_report():
    """A pass, two failures, a warning and a skip, with a wide and a long table, figures, long words and hashes."""
    lengths = [f"length {2**power}" for power in range(14)]
    wide = pandas.DataFrame(numpy.full((3, 14), 1 / 3), columns=lengths)
    names = [f"blocks.{layer}.attention.query_key_value.weight" for layer in range(60)]
    long = pandas.DataFrame(
        {"layer": names, "norm": 10.0 ** -numpy.arange(60), "sha256": ["0123456789abcdef" * 8] * 60}
    )
    checks = [
        Check("output shapes", "pass", "all shapes are right", table=wide),
        Check("causality", "fail", "sees the future", table=long, figure=[figure("One"), figure("Two", ncols=3)]),
        Check("robustness", "fail", "flips " + "verylongword" * 12, table=wide, critical=False),
        Check("inference_speed_" * 4, "warn", "p99 is 8 times the median", figure=figure("Times", figsize=(12, 4))),
        Check("padding", "skip", "no padding id"),
        Check("determinism", "pass", "bit for bit", figure=figure("Again")),
    ]
    url = "https://gist.githubusercontent.com/someone/" + "0123456789abcdef" * 6
    return Report(
        "Is this model sound?", checks, {"sha256 of custom_transformer.py": "0123456789abcdef" * 4, "url": url}
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    page, _ = full_report().save(tmp_path_factory.mktemp("report"), "validation_report")
    return page


@pytest.fixture
def visit(browser):
    """Opens an address; fails at the end where the console or the network had anything to say."""
    contexts, said, asked = [], [], []

    def open_page(address, width=1200, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    outside = [url for url in asked if not url.startswith(("file:", "data:", "about:"))]
    assert outside == []
    assert len([url for url in asked if url.startswith("file:")]) <= len(contexts)


OPEN_ALL = "document.querySelectorAll('details').forEach(one => one.open = true)"


def test_every_figure_is_visible_once_opened(visit, saved):
    page = visit(saved.as_uri())
    pictures = page.locator("img")
    assert pictures.count() == 4
    shown = [pictures.nth(at).is_visible() for at in range(4)]
    assert shown == [True, True, True, False]  # the last belongs to a check that passes
    page.locator("summary").last.focus()
    page.keyboard.press("Enter")
    for at in range(4):
        box = pictures.nth(at).bounding_box()
        natural = pictures.nth(at).evaluate("image => [image.naturalWidth, image.naturalHeight]")
        assert box["width"] > 200
        assert box["height"] > 100
        assert natural[0] / natural[1] == pytest.approx(box["width"] / box["height"], rel=0.02)  # not squeezed
        assert natural[0] >= 1.9 * box["width"]  # sharp at two device pixels a CSS pixel
    assert [pictures.nth(at).get_attribute("alt") for at in range(4)] == [
        "causality: One", "causality: Two", "inference_speed_" * 4 + ": Times", "determinism: Again"
    ]  # fmt: skip


@pytest.mark.parametrize("width", [320, 390, 768, 1200])
def test_the_page_never_scrolls_sideways_and_its_text_stays_inside(visit, saved, width):
    page = visit(saved.as_uri(), width=width)
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    spilt = page.evaluate(
        """() => [...document.querySelectorAll('h2, p, th, td, summary, .box')]
            .filter(one => !one.closest('.data') && one.getClientRects().length
                && one.getBoundingClientRect().width > 1
                && getComputedStyle(one.closest('thead') ?? one).position !== 'absolute')
            .filter(one => one.getBoundingClientRect().right > innerWidth + 0.5
                || (one.scrollWidth > one.clientWidth + 1 && !one.classList.contains('box')))
            .map(one => one.tagName + ': ' + one.textContent.slice(0, 60))"""
    )
    assert spilt == []
    wide = page.locator(".box", has=page.locator("text=length 8192")).first
    assert wide.evaluate("box => box.scrollWidth > box.clientWidth")  # in its own box


def test_a_phone_shows_a_result_over_the_whole_width_and_a_figure_large_enough_to_read(visit, saved):
    page = visit(saved.as_uri(), width=390)
    page.evaluate(OPEN_ALL)
    for at in range(6):
        assert page.locator(".checks > tbody > tr > td:last-child").nth(at).bounding_box()["width"] > 340
    for at in range(4):  # the 10 pt text of a figure is then 8 px high
        picture = page.locator("img").nth(at)
        full = picture.evaluate("image => image.naturalWidth") / 2
        assert picture.bounding_box()["width"] >= 0.59 * full


# The contrast of WCAG 2.2: (lighter + 0.05) / (darker + 0.05), of relative luminances.
CONTRASTS = """() => {
    const read = text => text.match(/[\\d.]+/g).map(Number);
    const linear = part => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const behind = one => {
        for (; one; one = one.parentElement) {
            const colour = read(getComputedStyle(one).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
            if (colour[3] > 0) throw new Error('half transparent');
        }
        throw new Error('no background');
    };
    const texts = [...document.querySelectorAll('.runall-report *')].filter(one =>
        one.tagName !== 'STYLE' && [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
    return texts.map(one => {
        const both = [luminance(read(getComputedStyle(one).color)), luminance(behind(one))];
        const [low, high] = both.sort((a, b) => a - b);
        return [one.tagName + '.' + one.className + ': ' + one.textContent.slice(0, 30), (high + 0.05) / (low + 0.05)];
    });
}"""


def brightness(page, selector):
    """Red + green + blue of the background, of 3 * 255."""
    colour = page.locator(selector).first.evaluate("one => getComputedStyle(one).backgroundColor")
    return sum(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(","))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(visit, saved, scheme):
    page = visit(saved.as_uri(), scheme=scheme)
    page.evaluate(OPEN_ALL)
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert [one for one in contrasts if one[1] < 4.5] == []
    dark = [brightness(page, place) < 3 * 64 for place in ("body", ".runall-report")]
    assert dark == [scheme == "dark"] * 2
    assert brightness(page, "img") == 3 * 255  # figures keep their white ground


@pytest.mark.parametrize(
    ("tags", "dark"),
    [
        ("<html><body data-jp-theme-light='true'>", False),
        ("<html><body data-jp-theme-light='false'>", True),
        ("<html theme='dark'><body>", True),
        ("<html><body class='vscode-dark'>", True),
        ("<html><body>", False),
    ],
)
def test_in_a_notebook_the_theme_is_the_notebooks_not_the_systems(visit, tmp_path, tags, dark):
    (tmp_path / "notebook.html").write_text(f"<!doctype html>{tags}{full_report()._repr_html_()}", encoding="utf-8")
    for scheme in ("light", "dark"):
        page = visit((tmp_path / "notebook.html").as_uri(), scheme=scheme)
        assert (brightness(page, ".runall-report") < 3 * 64) == dark
        page.evaluate(OPEN_ALL)
        assert [one for one in page.evaluate(CONTRASTS) if one[1] < 4.5] == []


# What JupyterLab's style sheet says of an output's tables, as far as it matters here.
JUPYTERLAB = """<style>
.jp-RenderedHTMLCommon { color: fuchsia }
.jp-RenderedHTMLCommon table { table-layout: fixed; margin-left: auto; margin-right: auto; font-size: 12px }
.jp-RenderedHTMLCommon:not(.jp-RenderedMarkdown) td, .jp-RenderedHTMLCommon:not(.jp-RenderedMarkdown) th {
  text-align: right; vertical-align: middle; padding: 3em }
.jp-RenderedHTMLCommon tbody tr:nth-child(odd) { background: fuchsia }
.jp-RenderedHTMLCommon tbody tr:hover { background: fuchsia }
</style>"""


def test_the_notebooks_own_style_for_tables_does_not_reach_the_report(visit, tmp_path):
    plain, styled = tmp_path / "plain.html", tmp_path / "styled.html"
    report = f'<div class="jp-RenderedHTMLCommon">{full_report()._repr_html_()}</div>'
    plain.write_text(f"<!doctype html>{report}", encoding="utf-8")
    styled.write_text(f"<!doctype html>{JUPYTERLAB}{report}", encoding="utf-8")
    pictures = []
    for path in (plain, styled):
        page = visit(path.as_uri())
        page.evaluate(OPEN_ALL)
        pictures.append(page.screenshot(full_page=True))
    assert pictures[0] == pictures[1]


def test_the_status_is_a_word_and_everything_folded_is_reached_by_keyboard(visit, saved):
    page = visit(saved.as_uri())
    assert page.locator(".badge").all_inner_texts() == ["pass", "fail", "fail", "warn", "skip", "pass"]
    assert page.locator(".verdict").inner_text().startswith("Not sound: causality fails (sees the future); also robust")
    focused = []
    for _ in range(30):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.tagName + document.activeElement.className"))
    # Five summaries; inside the three open ones, two tables and three figures.
    assert focused[:10].count("SUMMARY") == 5
    assert focused[:10].count("DIVbox") == 2
    assert focused[:10].count("DIVbox drawing") == 3
