"""`sweep`: one base config, many variations of it, one table. Ablations and studies differ only in their variations.

Leaves out how a run is made, which is passed in, and adaptive choice of the variations (`experiments.search`).
"""

from __future__ import annotations

import itertools
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from utils.core.config import Config, ConfigError, flatten, parse_overrides
from utils.core.deadline import OutOfTime, check_time
from utils.core.redact import redacted

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)
RunOne = Callable[[Any], Mapping[str, Any]]
"""config -> its metrics; one that takes up its runs by identity makes a sweep resumable"""


def override(key: str, value: Any) -> str:
    """`key=value` as a dotted override that reads back as the same value."""
    return f"{key}={json.dumps(value)}"


def grid(values: Mapping[str, Iterable[Any]]) -> list[list[str]]:
    """Every combination, as lists of overrides: `{"train.lr": [1, 2], "train.seed": [3]}`; the last key varies fastest.

    Raises `ConfigError` for a key without values, which would leave nothing to run.
    """
    columns = {key: [override(key, value) for value in several] for key, several in values.items()}
    empty = [key for key, several in columns.items() if not several]
    if empty:
        raise ConfigError(f"The grid has no values for {', '.join(empty)}; give at least one each.")
    return [list(combination) for combination in itertools.product(*columns.values())]


def sweep(
    base: Config, variations: Mapping[str, Iterable[Any]] | Iterable[str | Sequence[str]], run_one: RunOne
) -> pandas.DataFrame:
    """`run_one` of the base config under each variation: overrides such as `["train.lr=3e-4"]`, or a grid of values.

    A row a variation, in their order; a column for each setting that any of them changes, each metric, `seconds`, and
    `error`: "" or what went wrong. A variation that fails, in its settings or in its run, does not stop the others; one
    that ran out of time (`core.deadline`) does, since they share the hours.
    """
    import pandas

    several = grid(variations) if isinstance(variations, Mapping) else variations
    lists = [[one] if isinstance(one, str) else list(one) for one in several]
    own = dict(flatten(base.model_dump(mode="json")))
    changed = list(dict.fromkeys(key for one in lists for key, _ in flatten(parse_overrides(one))))
    rows, metrics, over = [], [], ""
    for number, overrides in enumerate(lists):
        start, found, error = time.perf_counter(), {}, ""
        given = dict(flatten(parse_overrides(overrides)))
        try:
            if over:
                raise OutOfTime(over)
            check_time()
            found = dict(run_one(base.replace(overrides)))
            if clash := {*changed, "seconds", "error"} & set(found):
                raise ConfigError(f"Metrics and settings of the same name, {', '.join(sorted(clash))}; rename one.")
        except OutOfTime as stop:
            found, error = {}, str(stop)
            if not over:
                over = "not begun: the hours of this session (max_hours) are over; run the same again"
                log.warning("Variation %d of %d: %s", number + 1, len(lists), error)
        except Exception as fault:  # recorded in the row; an interrupt travels
            found, error = {}, described(fault)
            log.warning("Variation %d of %d (%s) failed: %s", number + 1, len(lists), " ".join(overrides), told(fault))
        metrics += [name for name in found if name not in metrics]
        settings = {key: given.get(key, own.get(key)) for key in changed}
        rows.append({**settings, **found, "seconds": time.perf_counter() - start, "error": error})
    return pandas.DataFrame(rows, columns=[*changed, *metrics, "seconds", "error"])


def described(fault: BaseException) -> str:
    """`ValueError: what it says`, without known secrets."""
    return redacted(f"{type(fault).__name__}: {fault}")


def told(fault: BaseException) -> str:
    """The whole traceback, without known secrets."""
    return redacted("".join(traceback.format_exception(fault)))
