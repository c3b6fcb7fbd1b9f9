"""What may be wrong with a prepared text, as a `Report`: repeated lines, characters of one split alone, empty parts.

Of each split the first `MOST` tokens are read, which its checks say; of rows, `data.report` tells.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from utils.core.check import Check, Report
from utils.data.loaders import SPLITS, TextData

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 200_000  # tokens of a split that are read
LONG = 20  # characters of a line that is unlikely to be repeated by chance
REPEATED = 0.05  # share of long lines
SHOWN = 10


def text_report(data: TextData) -> Report:
    """Three checks of a text's splits, and what was read of them."""
    texts = {name: data.tokenizer.decode(getattr(data, name).tokens[:MOST].tolist()) for name in SPLITS}
    cut = [name for name in SPLITS if len(getattr(data, name).tokens) > MOST]
    facts = {"source": str(data.metadata["source"])}
    if cut:
        facts["read"] = f"the first {MOST:,} tokens of {', '.join(cut)}"
    return Report("Text", [_parts(texts), _lines(texts), _characters(texts)], facts, word="ready")


def _parts(texts: Mapping[str, str]) -> Check:
    """Whether every split has text."""
    empty = [name for name, text in texts.items() if not text.strip()]
    if empty:
        return Check("parts", "warn", f"no text in {', '.join(empty)}: nothing is measured there", critical=False)
    return Check("parts", "pass", "every split has text", critical=False)


def _lines(texts: Mapping[str, str]) -> Check:
    """Long lines of train that repeat another, and those of validation and test that are in train, too."""
    lines = {
        name: [one.strip() for one in text.split("\n") if len(one.strip()) >= LONG] for name, text in texts.items()
    }
    known = Counter(lines["train"])
    again = len(lines["train"]) - len(known)
    seen = sum(one in known for name in ("validation", "test") for one in lines[name])
    rest = len(lines["validation"]) + len(lines["test"])
    if not lines["train"]:
        return Check("lines", "skip", f"no line of train has {LONG} characters", critical=False)
    told = (
        f"of lines of {LONG} characters and more, {again:,} of {len(lines['train']):,} in train repeat another, and"
        f" {seen:,} of {rest:,} in validation and test are in train, too"
    )
    often = again > REPEATED * len(lines["train"]) or seen > REPEATED * rest
    return Check("lines", "warn" if often else "pass", told, critical=False)


def _characters(texts: Mapping[str, str]) -> Check:
    """Characters that training never meets."""
    unmet = sorted((set(texts["validation"]) | set(texts["test"])) - set(texts["train"]))
    if not unmet:
        return Check("characters", "pass", "every character of validation and test is in train", critical=False)
    shown = ", ".join(map(repr, unmet[:SHOWN])) + (", ..." if len(unmet) > SHOWN else "")
    are = "1 character" if len(unmet) == 1 else f"{len(unmet):,} characters"
    return Check("characters", "warn", f"{are} of validation or test are not in train: {shown}", critical=False)
