"""How a report looks: checks as HTML, in a notebook or as a saved page, light or dark, wide or on a phone.

One file without script or outside resource. Leaves out what a report says: utils/core/check.py.
"""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas
    from matplotlib.figure import Figure

    from utils.core.check import Check, Report

STATUSES = ("fail", "warn", "pass", "skip")  # the worst first
SCALE = 2  # pixels of a figure's PNG for each CSS pixel (of which an inch has 96)


def framed(html: str) -> str:
    return f'<div class="runall-report"><style>{_STYLE}</style>{html}</div>'


def page(title: str, html: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{_PAGE_STYLE}</style></head>'
        f'<body class="runall-page"><main>{html}</main></body></html>\n'
    )


def content(report: Report) -> str:
    """The title, the verdict, the facts and the table of checks."""
    number = {status: sum(check.status == status for check in report.checks) for status in STATUSES}
    counts = ", ".join(f"{one} {status}" for status, one in number.items() if one)
    tone = "warn" if report.status == "fail" and report.sound else report.status
    facts = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(str(value))}</td></tr>'
        for name, value in report.facts.items()
    )
    return (
        f'<h2>{escape(report.title)}</h2><p class="verdict {tone}">{escape(report.verdict)}</p>'
        + (f'<p class="counts">{counts}</p>' if len(report.checks) > 1 else "")
        + (f'<table class="facts"><tbody>{facts}</tbody></table>' if facts else "")
        + (checks_table(report.checks) if report.checks else "")
    )


def checks_table(checks: Sequence[Check]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Status", "Check", "Result"))
    rows = "".join(map(_row, checks))
    return f'<table class="checks"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _row(check: Check) -> str:
    inside = [picture(*one) for one in check.pictures]
    drawn = {0: "", 1: "figure"}.get(len(inside), f"{len(inside)} figures")
    label = drawn.capitalize()
    if check.table is not None:
        inside.insert(0, data_table(check.name, check.table))
        label = f"Table and {drawn}" if drawn else "Table"
    opened = " open" if check.status in ("fail", "warn") else ""
    details = f"<details{opened}><summary>{label}</summary>{''.join(inside)}</details>" if inside else ""
    note = "" if check.critical or check.status != "fail" else "<small>not critical</small>"
    return (
        f'<tr><td><span class="badge {check.status}">{check.status}</span></td>'
        f'<th scope="row">{escape(check.name)}{note}</th><td>{escape(check.summary)}{details}</td></tr>'
    )


def data_table(name: str, table: pandas.DataFrame) -> str:
    """A table's rows as HTML that scrolls by itself; `name` is what a screen reader says."""
    header, rows = columns(table)
    texts = [any(isinstance(row[at], (bool, str)) for row in rows) for at in range(len(header))]
    kinds = ["" if text else ' class="number"' for text in texts]
    head = "".join(f'<th scope="col"{kind}>{escape(one)}</th>' for one, kind in zip(header, kinds))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}><div>{escape(_text(one))}</div></td>' for one, kind in zip(row, kinds))}</tr>"
        for row in rows
    )
    return (
        f'<div class="box" role="region" tabindex="0" aria-label="{escape(name)}: table">'
        f'<table class="data"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def columns(table: pandas.DataFrame) -> tuple[list[str], list[list[Any]]]:
    """The header and the rows of a table as plain values (None where missing), its index first unless a plain range."""
    import pandas

    plain = isinstance(table.index, pandas.RangeIndex) and table.index.name is None
    header = [] if plain else ["" if name is None else str(name) for name in table.index.names]
    header += [" / ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in table.columns]
    rows = []
    for label, row in zip(table.index, table.itertuples(index=False, name=None)):
        labels = () if plain else label if isinstance(table.index, pandas.MultiIndex) else (label,)
        rows.append([_plain(value) for value in (*labels, *row)])
    return header, rows


def _plain(value: Any) -> None | bool | int | float | str:
    import pandas

    if getattr(value, "ndim", None) == 0:  # a number of numpy's or torch's
        value = value.item()
    if value is None or value is pandas.NA or value is pandas.NaT:
        return None
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _text(value: None | bool | int | float | str) -> str:
    """A value for a reader: 0.1235, 12,350 (4 significant digits), 1,234,567 (a whole number), yes, a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if value.is_integer() and abs(value) < 1e15:
        return f"{value + 0.0:,.0f}"  # -0.0 + 0.0 is 0.0
    rounded = float(f"{value:.4g}")
    return f"{rounded:,.0f}" if 1e4 <= abs(rounded) < 1e9 else f"{rounded:,.4g}"


def picture(png: bytes, alt: str) -> str:
    """The picture at its natural size; in a narrower place it shrinks to 0.6 of it, and then scrolls in its box."""
    width, height = (int.from_bytes(png[at : at + 4], "big") // SCALE for at in (16, 20))  # of the IHDR chunk
    return (
        f'<div class="box drawing" role="region" tabindex="0" aria-label="{escape(alt)}">'
        f'<img alt="{escape(alt)}" width="{width}" height="{height}" style="min-width: {round(0.6 * width)}px"'
        f' src="data:image/png;base64,{base64.b64encode(png).decode()}"></div>'
    )


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=96 * SCALE, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def alt(name: str, figure: Figure) -> str:
    """The check's name and the figure's titles."""
    titles = [figure.get_suptitle(), *(ax.get_title(loc) for ax in figure.axes for loc in ("left", "center", "right"))]
    said = ", ".join(dict.fromkeys(" ".join(title.split()) for title in titles if title))
    return f"{name}: {said}" if said else f"{name}: figure"


# Every text colour has a contrast of at least 4.5 on its background, in both sets (WCAG 2.2 AA).
_LIGHT = """color-scheme: light; --text: #1f2328; --quiet: #59636e; --back: #ffffff; --shade: #f6f8fa; --line: #d1d9e0;
 --pass: #116329; --pass-back: #dafbe1; --warn: #714700; --warn-back: #fff3c4; --fail: #a40e26; --fail-back: #ffe5e3;
 --skip: #59636e; --skip-back: #eef1f4; --focus: #0550ae"""
_DARK = """color-scheme: dark; --text: #e6edf3; --quiet: #a3adb8; --back: #15191e; --shade: #1e242b; --line: #3a424c;
 --pass: #7ee787; --pass-back: #12301c; --warn: #ecc055; --warn-back: #362a08; --fail: #ffa8a0; --fail-back: #45171a;
 --skip: #a3adb8; --skip-back: #262d35; --focus: #79c0ff"""
# In a notebook the theme is the notebook's (Jupyter, Colab, VS Code in turn), in a saved page the reader's.
_STYLE = f"""
.runall-report {{ {_LIGHT} }}
body[data-jp-theme-light="false"] .runall-report, html[theme="dark"] .runall-report,
body.vscode-dark .runall-report {{ {_DARK} }}
@media (prefers-color-scheme: dark) {{ .runall-page .runall-report {{ {_DARK} }} }}
.runall-report {{ padding: 1em; color: var(--text); background: var(--back);
 font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; text-align: left }}
.runall-report h2 {{ margin: 0 0 .5em; font-size: 1.35em; line-height: 1.25; color: inherit }}
.runall-report .verdict {{ margin: 0 0 .4em; padding: .6em .9em; border-left: 4px solid; border-radius: 4px;
 font-weight: 600 }}
.runall-report .counts {{ margin: 0 0 1em; color: var(--quiet); font-size: .9em }}
.runall-report table {{ border-collapse: collapse; border: 0; margin: 0; font-size: inherit; color: inherit;
 table-layout: auto }}
.runall-report tr, .runall-report tr:hover {{ background: none !important }}
.runall-report th, .runall-report td {{ padding: .5em .8em .5em 0; border: 0; text-align: left; vertical-align: top;
 font-weight: 400; line-height: 1.5; white-space: normal; max-width: none; color: inherit; background: none }}
.runall-report .facts {{ margin-bottom: 1.2em; font-size: .9em }}
.runall-report .facts th, .runall-report .facts td {{ padding: .1em 1em .1em 0 }}
.runall-report .facts th {{ color: var(--quiet); white-space: nowrap }}
.runall-report .checks {{ width: 100%; table-layout: fixed }}
.runall-report .checks > thead th {{ color: var(--quiet); font-size: .85em }}
.runall-report .checks > thead th:first-child {{ width: 4.6em }}
.runall-report .checks > thead th:nth-child(2) {{ width: 24% }}
.runall-report .checks > tbody > tr {{ border-top: 1px solid var(--line) }}
.runall-report .checks > tbody > tr > th {{ font-weight: 600; overflow-wrap: break-word }}
.runall-report .checks > tbody > tr > td:last-child {{ padding-right: 0; min-width: 0 }}
.runall-report small {{ display: block; color: var(--quiet); font-weight: 400; font-size: .8em }}
.runall-report .badge {{ display: inline-block; min-width: 3em; padding: 0 .5em; border-radius: 4px; text-align: center;
 font-size: .85em; font-weight: 600; line-height: 1.75; white-space: nowrap }}
.runall-report .pass {{ color: var(--pass); background: var(--pass-back) }}
.runall-report .warn {{ color: var(--warn); background: var(--warn-back) }}
.runall-report .fail {{ color: var(--fail); background: var(--fail-back) }}
.runall-report .skip {{ color: var(--skip); background: var(--skip-back) }}
.runall-report summary {{ display: list-item; width: fit-content; padding: .15em .4em .15em 0; color: var(--quiet);
 font-size: .9em; cursor: pointer }}
.runall-report summary:focus-visible, .runall-report .box:focus-visible {{ outline: 2px solid var(--focus);
 outline-offset: 1px }}
.runall-report .box {{ width: fit-content; max-width: 100%; max-height: 40em; margin: .5em 0; overflow: auto;
 box-sizing: border-box; border: 1px solid var(--line); border-radius: 4px }}
.runall-report .drawing {{ max-height: none }}
.runall-report .data {{ font-size: .87em; font-variant-numeric: tabular-nums }}
.runall-report .data th, .runall-report .data td {{ padding: .25em .8em }}
.runall-report .data td > div {{ width: max-content; max-width: min(24em, 60vw) }}
.runall-report .data thead th {{ position: sticky; top: 0; background: var(--shade); font-weight: 600;
 overflow-wrap: normal }}
.runall-report .data tbody tr {{ border-top: 1px solid var(--line) }}
.runall-report .data .number {{ text-align: right }}
.runall-report .data .number > div {{ margin-left: auto }}
.runall-report img {{ display: block; max-width: 100%; height: auto; margin: 0; background: white }}
@media (max-width: 40em) {{
 .runall-report .facts th {{ white-space: normal; min-width: 5em; overflow-wrap: break-word }}
 .runall-report .checks > thead {{ position: absolute; clip-path: inset(50%) }}
 .runall-report .checks, .runall-report .checks > tbody {{ display: block }}
 .runall-report .checks > tbody > tr {{ display: grid; grid-template-columns: auto minmax(0, 1fr); padding: .6em 0 }}
 .runall-report .checks > tbody > tr > th, .runall-report .checks > tbody > tr > td {{ padding-top: 0;
  padding-bottom: .2em }}
 .runall-report .checks > tbody > tr > td:last-child {{ grid-column: 1 / -1 }}
}}
""".replace(".runall-report", ".runall-report:not(#host)")  # an id outweighs any rule of the notebook's for tables
_PAGE_STYLE = f"""
.runall-page {{ {_LIGHT}; margin: 0; background: var(--back) }}
@media (prefers-color-scheme: dark) {{ .runall-page {{ {_DARK} }} }}
.runall-page main {{ max-width: 68em; margin: 0 auto }}
"""
