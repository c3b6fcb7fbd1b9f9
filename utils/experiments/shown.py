"""Tables of experiments for a reader: as plain text, and in a report's look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.core import report_page

if TYPE_CHECKING:
    import pandas

ABSENT = "–"


def text_table(table: pandas.DataFrame) -> str:
    """Plain text without the index; numbers with 5 significant digits, a dash for what is missing."""
    return table.to_string(index=False, float_format=lambda value: f"{value:.5g}", na_rep=ABSENT)


def html_table(table: pandas.DataFrame) -> str:
    return report_page.data_table("table", table)
