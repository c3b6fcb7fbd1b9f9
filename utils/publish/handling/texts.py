"""Tokenizers, read one way whatever they come from."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checks import FolderError


class Text:
    """Text to ids and back, and the ids that stand for no text, as metadata.json names them."""

    def __init__(self, tokenizer: Any, special: dict[str, Any]):
        inner = getattr(tokenizer, "inner", tokenizer)
        if hasattr(inner, "all_special_ids"):  # of transformers
            self._encode = lambda text: inner(text, add_special_tokens=False, verbose=False)["input_ids"]
            self._decode = lambda ids: inner.decode(ids, clean_up_tokenization_spaces=False)
        elif hasattr(inner, "token_to_id"):  # of tokenizers
            self._encode = lambda text: inner.encode(text, add_special_tokens=False).ids
            self._decode = lambda ids: inner.decode(list(ids), skip_special_tokens=False)
        else:  # of characters, or of pieces of programs
            self._encode, self._decode = tokenizer.encode, tokenizer.decode
        self.lock = threading.Lock()  # a tokenizer of Rust may not be read while another thread sets it up
        self.lines = hasattr(inner, "characters")
        """whether a line break, a character like others, is what ends a text"""
        self.end, self.mask = special.get("end"), special.get("mask")
        self.start = special.get("start") or 0
        self.before, self.after = tuple(special.get("before", ())), tuple(special.get("after", ()))
        marks = {*self.before, *self.after, special.get("padding"), self.end, special.get("decoder_start")}
        self.hidden = frozenset() if self.lines else frozenset(marks - {None, self.mask})

    def ends(self, *, line: bool) -> frozenset[int]:
        """Ids that end a text; a line break, where characters are the tokens, only where `line` says so."""
        return frozenset(() if self.end is None or (self.lines and not line) else (self.end,))

    def encode(self, text: str) -> list[int]:
        with self.lock:
            return [int(index) for index in self._encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        with self.lock:
            return self._decode(ids)

    def said(self, tokens: Sequence[int], after: Sequence[int] = ()) -> str:
        """The text of tokens without special ones, with the space that they begin with where they follow others."""
        tokens = [token for token in tokens if token not in self.hidden]
        if not after:
            return self.decode(tokens)
        first, both = self.decode(list(after)), self.decode([*after, *tokens])
        return both[len(first) :] if both.startswith(first) else self.decode(tokens)


@dataclass(frozen=True)
class Characters:
    """The tokenizer of characters, where no `model_code` has it: one id a character, then 256 of bytes."""

    characters: str
    byte_fallback: bool

    def encode(self, text: str) -> list[int]:
        ids = []
        for character in text:
            place = self.characters.find(character)
            if place < 0 and not self.byte_fallback:
                raise ValueError(f"{character!r} is not among its {len(self.characters)} characters")
            ids += [place] if place >= 0 else [len(self.characters) + byte for byte in character.encode()]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        known, text = len(self.characters), b""
        for index in ids:
            text += bytes([index - known]) if index >= known else self.characters[index].encode()
        return text.decode(errors="replace")


def load_tokenizer(folder: Path) -> Any:
    """Transformers' files in the folder or in tokenizer/, else ours in tokenizer/."""
    for place in (folder, folder / "tokenizer"):
        if (place / "tokenizer_config.json").is_file():
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    path = folder / "tokenizer" / "tokenizer.json"
    if not path.is_file():
        raise FolderError(f"{folder} has no tokenizer; expected tokenizer_config.json, or tokenizer/tokenizer.json.")
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("kind") == "char":
        return Characters(content["characters"], content["byte_fallback"])
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))
