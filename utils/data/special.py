"""The special tokens of a tokenizer: padding, end, mask, unknown, sentinels, and what stands around a text.

Read from the tokenizer itself, by asking it: nothing is known of any tokenizer by its name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.data.bpe import BPETokenizer
from utils.data.characters import CharTokenizer
from utils.data.hugging_face import HFTokenizer
from utils.data.tokenizer import Tokenizer, TokenizerError
from utils.data.wordpiece import WordPieceTokenizer


@dataclass(frozen=True)
class Special:
    """Ids of special tokens, None (or empty) where there is none, and the ids around one text or two."""

    pad: int | None = None
    end: int | None = None
    """what ends a text: end-of-text, or the separator of BERT-like tokenizers"""
    mask: int | None = None
    unknown: int | None = None
    sentinels: tuple[int, ...] = ()
    """<extra_id_0>, <extra_id_1>, ... of T5-like tokenizers"""
    before: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    ids: frozenset[int] = frozenset()
    """every special id: none of them is ever masked"""

    @property
    def padding(self) -> int:
        """What fills the places behind a text: any id will do, for `attention_mask` and labels of -100 mark them."""
        return next(index for index in (self.pad, self.end, 0) if index is not None)

    def room(self, pair: bool = False) -> int:
        """Special ids around one text, or two."""
        return len(self.before) + len(self.after) + (len(self.between) if pair else 0)

    def around(self, first: np.ndarray, second: np.ndarray | None = None, longest: int | None = None) -> np.ndarray:
        """before, first (, between, second), after; of `longest` ids at most: the longer text is cut, at its end."""
        room = None if longest is None else longest - self.room(second is not None)
        if second is None:
            parts = [self.before, first[:room], self.after]
        else:
            size = (len(first), len(second)) if room is None else _sizes(len(first), len(second), room)
            parts = [self.before, first[: size[0]], self.between, second[: size[1]], self.after]
        return np.concatenate([np.asarray(part, np.int64) for part in parts])


def _sizes(first: int, second: int, room: int) -> tuple[int, int]:
    """How much of two texts fits: the longer is cut first, down to the shorter, then both alike."""
    half = room // 2
    if first + second <= room:
        return first, second
    if first <= half:
        return first, room - first
    return (room - second, second) if second <= room - half else (half, room - half)


def special_of(tokenizer: Tokenizer) -> Special:
    """The special tokens of any of our tokenizers or of a Hugging Face one."""
    if isinstance(tokenizer, HFTokenizer):
        return _hugging_face(tokenizer)
    if isinstance(tokenizer, CharTokenizer):
        place = tokenizer.characters.find("\n")
        line = (place,) if place >= 0 else ()
        return Special(end=place if line else None, between=line, after=line)
    ids = {token: tokenizer.inner.token_to_id(token) for token in tokenizer.SPECIAL}
    if isinstance(tokenizer, WordPieceTokenizer):
        cls, sep = ids["[CLS]"], ids["[SEP]"]
        return Special(
            ids["[PAD]"], sep, ids["[MASK]"], ids["[UNK]"],
            before=(cls,), between=(sep,), after=(sep,), ids=frozenset(ids.values()),
        )  # fmt: skip
    if isinstance(tokenizer, BPETokenizer):
        end = ids[tokenizer.END]
        sentinels = tuple(index for token, index in ids.items() if token.startswith("<extra_id_"))
        return Special(
            ids.get("<pad>"), end, sentinels=sentinels, between=(end,), after=(end,), ids=frozenset(ids.values())
        )
    raise TokenizerError(
        f"A {type(tokenizer).__name__} is none of this package's tokenizers, so its special tokens are unknown."
    )


def _hugging_face(tokenizer: HFTokenizer) -> Special:
    inner = tokenizer.inner
    before, between, after = _template(inner)
    ends = (inner.eos_token_id, inner.sep_token_id)
    end = next((index for index in (*after[-1:], *ends) if index is not None), None)
    if not after and end is not None:  # GPT-2's adds nothing: a text must still have an end
        between, after = between or (end,), (end,)
    known = inner.get_vocab()
    sentinels = []
    while (token := f"<extra_id_{len(sentinels)}>") in known:
        sentinels.append(known[token])
    return Special(
        inner.pad_token_id, end, inner.mask_token_id, inner.unk_token_id, tuple(sentinels),
        before, between, after, frozenset({*inner.all_special_ids, *sentinels}),
    )  # fmt: skip


def _template(inner) -> tuple[tuple[int, ...], ...]:
    """What a tokenizer puts before, between and after two texts, from what it makes of two it knows."""
    plain = inner("a", add_special_tokens=False)["input_ids"]
    full = inner("a", "a")["input_ids"]
    size = len(plain)
    places = [at for at in range(len(full) - size + 1) if full[at : at + size] == plain]
    if len(places) < 2 or not size:
        raise TokenizerError(
            f"{type(inner).__name__} made {full} of the pair 'a', 'a', in which its ids of 'a', {plain}, are not found"
            " twice; give another tokenizer."
        )
    first, last = places[0], places[-1]
    return tuple(full[:first]), tuple(full[first + size : last]), tuple(full[last + size :])
