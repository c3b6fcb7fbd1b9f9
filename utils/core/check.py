"""`Check`: one question, its status and its reason. `Report`: a list of them that shows itself and saves itself."""

from __future__ import annotations

import base64
import html
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

Status = Literal["pass", "warn", "fail", "skip"]
ORDER: tuple[Status, ...] = ("fail", "warn", "pass", "skip")


@dataclass(frozen=True)
class Check:
    """The outcome of one check. `summary` gives the reason for the status, in one sentence."""

    name: str
    status: Status
    summary: str
    table: pandas.DataFrame | None = None
    figure: Figure | None = None

    def __str__(self) -> str:
        return f"{self.status:>4}  {self.name}: {self.summary}"

    def _repr_html_(self) -> str:
        return Report(self.name, [self])._repr_html_()


@dataclass
class Report:
    """Checks under one title. The verdict is computed from their statuses."""

    title: str
    checks: list[Check] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """The worst status of all: fail, then warn, then pass; skip only where every check was skipped."""
        return next((status for status in ORDER if any(check.status == status for check in self.checks)), "skip")

    @property
    def verdict(self) -> str:
        counts = {status: sum(check.status == status for check in self.checks) for status in ORDER}
        text = ", ".join(f"{number} {status}" for status, number in counts.items() if number) or "no checks"
        worst = [check.name for check in self.checks if check.status == "fail"]
        return f"{text}; look at: {', '.join(worst)}" if worst else text

    def save(self, folder: str | Path, name: str) -> tuple[Path, Path]:
        """Write `<name>.html` (one file, figures inside) and `<name>.json`."""
        page, data = Path(folder) / f"{name}.html", Path(folder) / f"{name}.json"
        head = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        )
        page.write_text(f"{head}<title>{html.escape(self.title)}</title>{self._repr_html_()}</html>", encoding="utf-8")
        rows = [
            {
                "name": check.name,
                "status": check.status,
                "summary": check.summary,
                "table": None if check.table is None else json.loads(check.table.to_json(orient="table")),
            }
            for check in self.checks
        ]
        content = {"title": self.title, "status": self.status, "verdict": self.verdict, "checks": rows}
        data.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
        return page, data

    def __str__(self) -> str:
        return "\n".join([f"{self.title}: {self.verdict}", *map(str, self.checks)])

    def _repr_html_(self) -> str:
        rows = "".join(map(_row, self.checks))
        heading = f"<h3>{html.escape(self.title)}: {html.escape(self.verdict)}</h3>"
        return f'<div class="runall-report"><style>{_STYLE}</style>{heading}<table>{rows}</table></div>'


def _row(check: Check) -> str:
    more = "" if check.table is None else check.table.to_html(border=0)
    if check.figure is not None:
        buffer = io.BytesIO()
        check.figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        picture = base64.b64encode(buffer.getvalue()).decode()
        more += f'<img alt="{html.escape(check.name)}" src="data:image/png;base64,{picture}">'
    details = f"<details><summary>more</summary>{more}</details>" if more else ""
    name, summary = html.escape(check.name), html.escape(check.summary)
    return f'<tr><td class="{check.status}">{check.status}</td><th>{name}</th><td>{summary}{details}</td></tr>'


_STYLE = """
.runall-report { font-family: system-ui, sans-serif; color-scheme: light dark; overflow-x: auto }
.runall-report td, .runall-report th { text-align: left; vertical-align: top; padding: .3em .6em }
.runall-report img { max-width: 100%; background: white }
.runall-report .pass { color: #2a8a3e } .runall-report .warn { color: #b8860b }
.runall-report .fail { color: #cf3030; font-weight: bold } .runall-report .skip { color: #808080 }
"""
