"""`Check`: one question, its status and its reason. `Report`: a list of them that shows itself and saves itself.

How they look is utils/core/report_page.py. Leaves out any decision: whoever makes a check sets its status.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.core import report_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas
    from matplotlib.figure import Figure

Status = Literal["pass", "warn", "fail", "skip"]
ORDER: tuple[Status, ...] = ("fail", "warn", "pass", "skip")


@dataclass(frozen=True)
class Check:
    """The outcome of one check. `summary` gives the reason for the status, in one sentence.

    What is judged passes only where no `critical` check fails; any other failure is worth knowing, and no more.
    """

    name: str
    status: Status
    summary: str
    table: pandas.DataFrame | None = None
    figure: Figure | Sequence[Figure] | None = None
    critical: bool = True

    @property
    def figures(self) -> list[Figure]:
        """The figures, however many were given."""
        several = isinstance(self.figure, (list, tuple))
        return list(self.figure) if several else [] if self.figure is None else [self.figure]

    @functools.cached_property
    def pictures(self) -> tuple[tuple[bytes, str], ...]:
        """Each figure as (PNG, text for who cannot see it), drawn once."""
        return tuple((report_page.png(figure), report_page.alt(self.name, figure)) for figure in self.figures)

    def __str__(self) -> str:
        return f"{self.status:>4}  {self.name}: {self.summary}"

    def _repr_html_(self) -> str:
        return report_page.framed(report_page.checks_table([self]))


@dataclass
class Report:
    """Checks under one title, and the `facts` about what was checked. The verdict is computed from the statuses.

    `word` is what the verdict calls a thing none of whose critical checks fails: sound, ready, faithful.
    """

    title: str
    checks: list[Check] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    word: str = "sound"

    def __getitem__(self, name: str) -> Check:
        """The check of that name. Raises KeyError where there is none."""
        return {check.name: check for check in self.checks}[name]

    @property
    def status(self) -> Status:
        """The worst status of all: fail, then warn, then pass; skip only where every check was skipped."""
        return next((status for status in ORDER if self._having(status)), "skip")

    @property
    def sound(self) -> bool:
        """Whether no critical check fails."""
        return not any(check.critical for check in self._having("fail"))

    @property
    def verdict(self) -> str:
        """One sentence: the critical failures and their reasons, then other failures, then warnings."""
        failed, warned, passed, skipped = map(self._having, ORDER)
        if not failed and not warned and not passed:
            why = f"all {len(skipped)} checks were skipped" if len(skipped) > 1 else "the only check was skipped"
            return f"Nothing was checked: {why if skipped else 'there are no checks'}."
        critical = "; ".join(_reason(check) for check in failed if check.critical)
        other = "; ".join(_reason(check) for check in failed if not check.critical)
        warnings = f"{len(warned)} warning{'s' if len(warned) > 1 else ''}: " if warned else ""
        warnings += "; ".join(_told(check) for check in warned)
        if critical:
            parts = [critical, f"also {other}" if other else "", warnings]
            return f"Not {self.word}: {'; '.join(filter(None, parts))}."
        if other:
            return f"{self.word.capitalize()}, but {'; '.join(filter(None, [other, warnings]))}."
        if warnings:
            return f"{self.word.capitalize()}, with {warnings}."
        every = f"all {len(passed)} checks pass" if len(passed) > 1 else "the only check passes"
        return f"{self.word.capitalize()}: {every}{f' ({len(skipped)} skipped)' if skipped else ''}."

    def save(self, folder: str | Path, name: str) -> tuple[Path, Path]:
        """Write `<name>.html` (one file, figures inside) and `<name>.json` (no figures; NaN and infinity are null)."""
        page, data = Path(folder) / f"{name}.html", Path(folder) / f"{name}.json"
        page.parent.mkdir(parents=True, exist_ok=True)
        # What UTF-8 cannot hold (half a surrogate pair, from a file name) is written as each format's own escape.
        page.write_text(report_page.page(self.title, self._repr_html_()), encoding="utf-8", errors="xmlcharrefreplace")
        text = json.dumps(self._content(), indent=2, ensure_ascii=False, allow_nan=False)
        data.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        return page, data

    def __str__(self) -> str:
        facts = [f"      {name}: {value}" for name, value in self.facts.items()]
        return "\n".join([self.title, self.verdict, *facts, *map(str, self.checks)])

    def _having(self, status: Status) -> list[Check]:
        return [check for check in self.checks if check.status == status]

    def _content(self) -> dict[str, Any]:
        checks = [
            {
                "name": check.name,
                "status": check.status,
                "critical": check.critical,
                "summary": check.summary,
                "table": None if check.table is None else _finite(check.table),
            }
            for check in self.checks
        ]
        facts = {str(name): str(value) for name, value in self.facts.items()}
        head = {"title": self.title, "status": self.status, "sound": self.sound, "verdict": self.verdict}
        return {**head, "facts": facts, "checks": checks}

    def _repr_html_(self) -> str:
        return report_page.framed(report_page.content(self))


def _told(check: Check) -> str:
    """A warning: its name, and where it is critical its summary."""
    return f"{check.name} ({_line(check)})" if check.critical else check.name


def _reason(check: Check) -> str:
    """`causality fails (its summary)`, on one line."""
    return f"{check.name} fails ({_line(check)})"


def _line(check: Check) -> str:
    return " ".join(check.summary.split()).rstrip(".")


def _finite(table: pandas.DataFrame) -> dict[str, list]:
    """A table for JSON: {"columns": [name, ...], "rows": [[value, ...], ...]}, which pandas.DataFrame's columns and
    data take up again."""
    header, rows = report_page.columns(table)
    rows = [[None if isinstance(one, float) and not math.isfinite(one) else one for one in row] for row in rows]
    return {"columns": header, "rows": rows}
