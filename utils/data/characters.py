"""A tokenizer of characters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.data.tokenizer import TokenizerError


class CharTokenizer:
    """One id a character, in code-point order; with `byte_fallback`, 256 more ids for the bytes of any other."""

    def __init__(self, characters: str, *, byte_fallback: bool = False):
        self.characters = "".join(sorted(set(characters)))
        self.byte_fallback = byte_fallback
        self.vocab_size = len(self.characters) + 256 * byte_fallback
        self.start_id = max(self.characters.find("\n"), 0)
        points = np.array([ord(character) for character in self.characters])
        self._ids = np.full(int(points.max()) + 1, -1)  # code point -> id
        self._ids[points] = np.arange(len(points))

    def encode(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        ids = np.where(points < len(self._ids), self._ids[np.minimum(points, len(self._ids) - 1)], -1)
        unknown = np.flatnonzero(ids < 0)
        if len(unknown) == 0:
            return ids
        if not self.byte_fallback:
            names = ", ".join(f"{character!r}" for character in sorted({text[index] for index in unknown})[:10])
            are = "character is" if len(unknown) == 1 else "characters are"
            raise TokenizerError(
                f"{len(unknown)} {are} outside the vocabulary of {self.vocab_size}: {names}. Remove them, or train with"
                " data.tokenizer.byte_fallback=true (of a recipe with rows: rows.tokenizer.byte_fallback=true)."
            )
        spelled, before = [], 0
        for index in unknown:
            spelled += [
                ids[before:index],
                np.frombuffer(text[index].encode(), np.uint8) + np.int64(len(self.characters)),
            ]
            before = index + 1
        return np.concatenate([*spelled, ids[before:]])

    def decode(self, ids: Sequence[int]) -> str:
        text, spelled = [], bytearray()
        for index in map(int, ids):
            if index >= len(self.characters):
                spelled.append(index - len(self.characters))
                continue
            text += [spelled.decode(errors="replace"), self.characters[index]]
            spelled.clear()
        return "".join(text) + spelled.decode(errors="replace")

    def save(self, folder: Path) -> None:
        content = {"kind": "char", "characters": self.characters, "byte_fallback": self.byte_fallback}
        (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
