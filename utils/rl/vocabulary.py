"""The tiny policy's vocabulary: pieces of Python as `arc.programs` writes it, cells of grids, and single characters.

A prompt's rows of digits are made of cells, which are ids of their own: a digit in a program is another token. Every
text of printable ASCII characters comes back from its ids as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

from utils.core.config import digest

SPECIAL = ("<pad>", "<bos>", "<eos>")
CELLS = tuple("0123456789")
ROW = "\n"
MARKS = ("input\n", "output\n")
HEAD = "def solve(grid):\n"
FRAME = (HEAD, "    grid = ", "    return ", "(grid)\n", "(grid, ", ", ", ")\n")
CHARACTERS = tuple(map(chr, range(32, 127))) + ("\n",)


class PieceTokenizer:
    """Ids of texts. `names` are the primitives, each one token."""

    pad_id, bos_id, eos_id = range(3)
    first_cell = len(SPECIAL)
    row_id = first_cell + len(CELLS)
    mark_ids = (row_id + 1, row_id + 2)

    def __init__(self, names: Iterable[str]):
        self.names = tuple(sorted(names))
        start = self.mark_ids[-1] + 1
        pieces = dict.fromkeys((*FRAME, *self.names, *CHARACTERS))
        self.pieces = {piece: start + at for at, piece in enumerate(pieces)}
        self.texts = ("", "", "", *CELLS, ROW, *MARKS, *self.pieces)

    @property
    def vocab_size(self) -> int:
        return len(self.texts)

    @property
    def banned(self) -> tuple[int, ...]:
        """Ids that no program holds: padding, the start, and the parts of a prompt's grids."""
        return (self.pad_id, self.bos_id, *range(self.first_cell, self.mark_ids[-1] + 1))

    @property
    def fingerprint(self) -> str:
        return digest(list(self.texts))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Longest pieces first; a name only where no letter goes on before or after it.
        frame = "|".join(map(re.escape, sorted(FRAME, key=len, reverse=True)))
        names = "|".join(map(re.escape, sorted(self.names, key=len, reverse=True)))
        marks = "|".join(map(re.escape, MARKS))
        return re.compile(rf"(?m)(?P<row>^[0-9]+\n)|(?P<mark>^(?:{marks}))|{frame}|\b(?:{names})\b|.|\n", re.ASCII)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without a start or an end. Raises ValueError for a character that is not ASCII."""
        ids: list[int] = []
        for found in self._pattern.finditer(text):
            piece = found.group()
            if found.lastgroup == "row":
                ids += [self.first_cell + int(cell) for cell in piece[:-1]]
                ids.append(self.row_id)
            elif found.lastgroup == "mark":
                ids.append(self.mark_ids[MARKS.index(piece)])
            elif piece in self.pieces:
                ids.append(self.pieces[piece])
            else:
                raise ValueError(f"{piece!r} is not in the vocabulary of pieces; expected printable ASCII.")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; padding, start and end are nothing."""
        return "".join(self.texts[one] for one in ids)
