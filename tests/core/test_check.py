"""Checks and reports: the verdict, and what is shown and saved."""

import json
import math

import numpy
import pandas
import pytest

from utils.core.check import Check, Report
from utils.core.plots import canvas


def report(*statuses, **more):
    """Checks a, b, c, ... of these statuses; "fail*" is a failure that is not critical."""
    names = "abcdefgh"
    checks = [
        Check(name, status.rstrip("*"), f"{name} is so.", critical="*" not in status)
        for name, status in zip(names, statuses)
    ]
    return Report("title", checks, **more)


@pytest.mark.parametrize(
    ("statuses", "worst", "verdict"),
    [
        (
            ["pass", "warn", "fail*", "skip", "fail", "fail"],
            "fail",
            "Not sound: e fails (e is so); f fails (f is so); also c fails (c is so); 1 warning: b (b is so).",
        ),
        (["fail"], "fail", "Not sound: a fails (a is so)."),
        (["warn", "fail*", "warn"], "fail", "Sound, but b fails (b is so); 2 warnings: a (a is so); c (c is so)."),
        (["fail*", "pass"], "fail", "Sound, but a fails (a is so)."),
        (["pass", "warn", "skip", "warn"], "warn", "Sound, with 2 warnings: b (b is so); d (d is so)."),
        (["skip", "pass", "pass"], "pass", "Sound: all 2 checks pass (1 skipped)."),
        (["pass"], "pass", "Sound: the only check passes."),
        (["skip", "skip"], "skip", "Nothing was checked: all 2 checks were skipped."),
        (["skip"], "skip", "Nothing was checked: the only check was skipped."),
        ([], "skip", "Nothing was checked: there are no checks."),
    ],
)
def test_the_verdict_says_the_worst_first_and_why(statuses, worst, verdict):
    made = report(*statuses)
    assert (made.status, made.verdict) == (worst, verdict)
    assert made.sound == ("fail" not in statuses)


def test_the_verdict_stays_one_line_and_uses_the_word_of_its_report():
    made = Report(
        "Environment", [Check("torch", "fail", "not installed;\n  pip install torch==2.13.0\n")], word="ready"
    )
    assert made.verdict == "Not ready: torch fails (not installed; pip install torch==2.13.0)."
    assert report("pass", "pass", word="ready").verdict == "Ready: all 2 checks pass."


def drawing(**titles):
    with canvas() as ax:
        ax.plot([1, 2])
        ax.set(**titles)
    return ax.figure


def test_a_saved_report_holds_everything_in_two_files(tmp_path):
    table = pandas.DataFrame({"share": [0.5, None]}, index=pandas.Index(["a", "b"], name="layer"))
    checks = [
        Check("figure", "pass", "drawn", figure=drawing()),
        Check("table", "warn", "ü", table=table, figure=[drawing(), drawing()], critical=False),
    ]
    whole = Report("A title", checks, {"revision": "3f9a2c"})
    page, data = whole.save(tmp_path / "made" / "now", "report")
    content = json.loads(data.read_text(encoding="utf-8"))
    assert {key: content[key] for key in ("title", "status", "sound", "verdict", "facts")} == {
        "title": "A title",
        "status": "warn",
        "sound": True,
        "verdict": "Sound, with 1 warning: table.",
        "facts": {"revision": "3f9a2c"},
    }
    assert content["checks"][0] == {
        "name": "figure", "status": "pass", "critical": True, "summary": "drawn", "table": None
    }  # fmt: skip
    assert content["checks"][1]["summary"] == "ü"
    assert content["checks"][1]["table"] == {"columns": ["layer", "share"], "rows": [["a", 0.5], ["b", None]]}
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.count("data:image/png;base64,") == 3
    assert "<title>A title</title>" in text
    assert whole._repr_html_() in text
    assert str(whole).splitlines() == [
        "A title",
        "Sound, with 1 warning: table.",
        "      revision: 3f9a2c",
        "pass  figure: drawn",
        "warn  table: ü",
    ]


def test_the_json_is_strict_whatever_a_table_holds(tmp_path):
    table = pandas.DataFrame(
        {
            "float": [math.nan, math.inf, -math.inf, 1e-300],
            "numpy": [numpy.float32(0.5), numpy.int64(7), numpy.bool_(True), numpy.float32("nan")],
            "any": [None, pandas.NA, pandas.NaT, (1, 2)],
            "text \udc80": ["\udc80", "ü", '"', "\0"],
        }
    )
    _, data = Report("t", [Check("c", "pass", "s", table=table)], {"n": 3}).save(tmp_path, "r")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(data.read_text(encoding="utf-8"), parse_constant=refuse)
    columns = content["checks"][0]["table"]["columns"]
    assert columns == ["float", "numpy", "any", "text \udc80"]
    assert list(zip(*content["checks"][0]["table"]["rows"])) == [
        (None, None, None, 1e-300),
        (0.5, 7, True, None),
        (None, None, None, "(1, 2)"),
        ("\udc80", "ü", '"', "\0"),
    ]
    assert content["facts"] == {"n": "3"}


def test_a_table_of_several_levels_and_of_equal_names_keeps_every_value(tmp_path):
    index = pandas.MultiIndex.from_product([["cpu"], [1, 2]], names=["device", None])
    columns = pandas.MultiIndex.from_tuples([("time", "median"), ("time", "median"), ("size", "")])
    table = pandas.DataFrame([[1, 2, 3], [4, 5, 6]], index=index, columns=columns)
    _, data = Report("t", [Check("c", "pass", "s", table=table)]).save(tmp_path, "r")
    assert json.loads(data.read_text())["checks"][0]["table"] == {
        "columns": ["device", "", "time / median", "time / median", "size / "],
        "rows": [["cpu", 1, 1, 2, 3], ["cpu", 2, 4, 5, 6]],
    }


def test_nothing_in_a_check_is_read_as_html(tmp_path):
    bad = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"
    table = pandas.DataFrame({bad: [bad]}, index=pandas.Index([bad], name=bad))
    check = Check(bad, "fail", bad, table=table, figure=drawing(title=bad.replace("$", "")))
    page, _ = Report(bad, [check], {bad: bad}).save(tmp_path, "report")
    for text in (page.read_text(encoding="utf-8"), check._repr_html_()):
        assert "&lt;script&gt;" in text
        assert "<script" not in text
        assert "<img src=x" not in text


def test_figures_are_drawn_once_however_often_a_report_is_shown(tmp_path, monkeypatch):
    figure = drawing()
    drawn = []
    real = figure.savefig
    monkeypatch.setattr(figure, "savefig", lambda *given, **more: (drawn.append(1), real(*given, **more)))
    made = Report("t", [Check("c", "pass", "s", figure=figure)])
    assert made._repr_html_() == made._repr_html_()
    made.save(tmp_path, "r")
    assert drawn == [1]
