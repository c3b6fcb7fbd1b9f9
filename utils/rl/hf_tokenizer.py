"""A tokenizer of transformers' as a policy needs it: padding that is not the end, and ids that no program holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any


class HFTokenizer:
    """`inner` for a model whose logits are `width` wide.

    Many tokenizers have no padding, or pad with the end of the text, which a policy must tell apart. `pad_id` is then
    another special id, or one that the logits have and the vocabulary does not; nothing ever reads or draws it. Raises
    ValueError where there is neither, or no end.
    """

    def __init__(self, inner: Any, width: int):
        self.inner, self.vocab_size = inner, width
        if inner.eos_token_id is None:
            raise ValueError(f"{inner.name_or_path}: a tokenizer without an end-of-text token; a policy needs one.")
        self.eos_id: int = inner.eos_token_id
        special = special_ids(inner)
        self.pad_id, self.told = find_pad(inner, width)
        unnamed = set(range(width)) - set(inner.get_vocab().values())
        self.banned = tuple(sorted((special | unnamed | {self.pad_id}) - {self.eos_id}))

    @property
    def fingerprint(self) -> str:
        """Of the vocabulary, the rules and the chat template."""
        backend = getattr(self.inner, "backend_tokenizer", None)
        rules = backend.to_str() if backend is not None else json.dumps(sorted(self.inner.get_vocab().items()))
        return hashlib.sha256((rules + str(self.inner.chat_template)).encode()).hexdigest()[:12]

    def encode(self, text: str) -> list[int]:
        """The ids of a text alone, nothing added."""
        return self.inner(text, add_special_tokens=False, verbose=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; padding, the end and other special tokens are nothing."""
        return self.inner.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def prompt(self, content: str | Sequence[Mapping[str, str]]) -> list[int]:
        """The ids of a prompt that the model is to answer: a text, or the messages of a chat.

        By the chat template where there is one, a text being what the user says, up to where the answer begins; else
        the messages' texts, an empty line between them, after the start of a text where the tokenizer puts one.
        """
        if self.inner.chat_template is not None:
            messages = [{"role": "user", "content": content}] if isinstance(content, str) else list(content)
            return self.encode(self.inner.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        text = content if isinstance(content, str) else "\n\n".join(message["content"] for message in content) + "\n\n"
        ids = self.inner(text, verbose=False)["input_ids"]
        return ids[:-1] if ids and ids[-1] == self.eos_id else ids


def special_ids(inner: Any) -> set[int]:
    """Ids that stand for no text; some tokenizers list only a few of them as special, and mark the others so."""
    return {*inner.all_special_ids, *(at for at, token in inner.added_tokens_decoder.items() if token.special)}


def find_pad(inner: Any, width: int) -> tuple[int, str]:
    """An id for padding, not the end's, below `width`, and how it was found. Raises ValueError where there is none."""
    own, eos = inner.pad_token_id, inner.eos_token_id
    if own is not None and own != eos and own < width:
        return own, f"padding is the tokenizer's, {inner.pad_token} ({own})"
    why = "the tokenizer has no padding" if own is None else "the tokenizer pads with the end of the text"
    special = sorted(special_ids(inner) - {eos, inner.bos_token_id})
    free = [*(at for at in special if at < width), *range(max(inner.get_vocab().values()) + 1, width)]
    if not free:
        raise ValueError(f"{inner.name_or_path}: {why}, and none of {width} ids is free for it.")
    token = inner.convert_ids_to_tokens(free[0]) if free[0] in special else "an id without a text"
    return free[0], f"padding is {token} ({free[0]}), as {why}"
