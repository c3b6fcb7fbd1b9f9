"""`Course`: how pass@1 on validation tasks went over a run's updates, and which of them was best.

Leaves out what is kept of which update: that is decided by the checkpoints (`core.checkpoints`), as here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

    from utils.core.run import Run


@dataclass(frozen=True)
class Course:
    """pass@1 by update, the first one that of the start."""

    rates: pandas.Series = field(repr=False)

    @property
    def best(self) -> int:
        """The update of the highest rate; of equals the later one, whose weights are the run's best."""
        return int(self.rates[self.rates == self.rates.max()].index[-1])

    @property
    def last(self) -> int:
        return int(self.rates.index[-1])

    @property
    def rose(self) -> bool:
        """Whether it was ever above the start; True where there is nothing to say (no rate could be written)."""
        return not len(self.rates) or bool(self.rates.max() > self.rates.iloc[0])

    @property
    def caveat(self) -> str:
        """What to say beside the best rate where it is no higher than the start's; or ""."""
        return "" if self.rose else ", never above the start"

    def __str__(self) -> str:
        start, best = (f"{one:.1%}" for one in (self.rates.iloc[0], self.rates.max()))
        if self.rose:
            return f"Validation pass@1 was best at update {self.best:,} of {self.last:,}: {best}, from {start}."
        equal = f", and equal to it last at update {self.best:,}, whose weights count as the best" * (self.best > 0)
        return f"Validation pass@1 was never above the start's {start} in {self.last:,} updates{equal}."


def course_of(run: Run) -> Course:
    """As far as it was logged."""
    import pandas

    return Course(run.metrics().get("validation/pass@1", pandas.Series(dtype=float)).dropna())
