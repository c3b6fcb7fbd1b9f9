"""A task to text, and to tokens, and back: whether the same comes again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from utils.arc.tasks import Task
from utils.arc.text import FORMATS, from_text, to_text
from utils.rl.vocabulary import HEAD

if TYPE_CHECKING:
    import pandas

    from utils.rl.dialogue import Dialogue


def round_trip(task: Task, dialogue: Dialogue) -> pandas.DataFrame:
    """A row for the task's grids in each format, and one for its prompt as the policy's tokens.

    The ids of a prompt must say its text again: as it is, with the first line of the program where that belongs to it;
    of a chat the text of every message in order, as its template puts marks around them.
    """
    import pandas

    grids = [grid for pair in (*task.train, *task.test) for grid in (pair.input, pair.output)]
    rows = []
    for name in FORMATS:
        texts = [to_text(grid, name) for grid in grids]
        same = sum(np.array_equal(from_text(text, name), grid) for text, grid in zip(texts, grids))
        rows.append((f"grids as {name}", f"{sum(map(len, texts))} characters", f"{same} of {len(grids)} grids"))
    ids = dialogue.encode(task)
    back = says(dialogue.tokenizer.decode(ids), dialogue.prompt(task).content)
    takes = f"{len(ids)} tokens (vocabulary {dialogue.tokenizer.vocab_size:,})"
    rows.append(("prompt as tokens", takes, "yes" if back else "no"))
    return pandas.DataFrame(rows, columns=["written", "takes", "comes back the same"])


def says(text: str, content: str | list[dict[str, str]]) -> bool:
    """Whether a text is a prompt's content, or holds all messages of it, one after another."""
    if isinstance(content, str):
        return text.removesuffix(HEAD) == content
    at = 0
    for message in content:
        part = message["content"].strip()
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True
