"""Checks and reports: the verdict, and what is shown and saved."""

import json

import pandas
import pytest

from utils.core.check import Check, Report
from utils.core.plots import canvas


def report(*statuses):
    return Report("title", [Check(f"check {index}", status, "why") for index, status in enumerate(statuses)])


@pytest.mark.parametrize(
    ("statuses", "worst", "verdict"),
    [
        (["pass", "warn", "fail", "skip", "fail"], "fail", "2 fail, 1 warn, 1 pass, 1 skip; look at: check 2, check 4"),
        (["pass", "warn", "skip"], "warn", "1 warn, 1 pass, 1 skip"),
        (["skip", "pass", "pass"], "pass", "2 pass, 1 skip"),
        (["skip"], "skip", "1 skip"),
        ([], "skip", "no checks"),
    ],
)
def test_the_verdict_is_that_of_the_worst_check(statuses, worst, verdict):
    assert (report(*statuses).status, report(*statuses).verdict) == (worst, verdict)


def test_a_saved_report_holds_everything_in_two_files(tmp_path):
    with canvas() as ax:
        ax.plot([1, 2])
    table = pandas.DataFrame({"share": [0.5, None]}, index=pandas.Index(["a", "b"], name="layer"))
    checks = [Check("figure", "pass", "drawn", figure=ax.figure), Check("table", "warn", "ü", table=table)]
    whole = Report("A title", checks)
    page, data = whole.save(tmp_path, "report")
    content = json.loads(data.read_text(encoding="utf-8"))
    assert (content["title"], content["status"], content["verdict"]) == ("A title", "warn", "1 warn, 1 pass")
    assert [check["summary"] for check in content["checks"]] == ["drawn", "ü"]
    assert content["checks"][1]["table"]["data"] == [{"layer": "a", "share": 0.5}, {"layer": "b", "share": None}]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.count("data:image/png;base64,") == 1
    assert "<title>A title</title>" in text
    assert whole._repr_html_() in text
    assert str(whole).splitlines()[1] == "pass  figure: drawn"


def test_nothing_in_a_check_is_read_as_html(tmp_path):
    bad = "<script>alert('x')</script>"
    check = Check(bad, "fail", bad, table=pandas.DataFrame({bad: [bad]}))
    page, _ = Report(bad, [check]).save(tmp_path, "report")
    for text in (page.read_text(encoding="utf-8"), check._repr_html_()):
        assert "&lt;script&gt;" in text
        assert "<script>" not in text
