"""A tokenizer of pieces of words, as BERT's; and how its entries are learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.data.tokenizer import lines_of

CONTINUED = 0xF0000  # what is added to a character inside a word while merges are learned: private code points


class WordPieceTokenizer:
    """WordPiece as in BERT (Devlin et al. 2019), by the `tokenizers` library: lower case, without accents.

    Decoding gives the words back, not the spaces between them. What is in no entry is `[UNK]`.
    """

    SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

    def __init__(self, inner):
        self.inner = inner
        self.vocab_size = inner.get_vocab_size()
        self.start_id = inner.token_to_id("[CLS]")

    @classmethod
    def train(cls, text: str, vocab_size: int) -> WordPieceTokenizer:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

        inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        inner.normalizer = normalizers.BertNormalizer(lowercase=True)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.WordPiece(cleanup=False)
        inner.model = models.WordPiece(_pieces(inner, text, cls.SPECIAL, vocab_size), unk_token="[UNK]")
        inner.add_special_tokens(list(cls.SPECIAL))
        return cls(inner)

    def encode(self, text: str) -> np.ndarray:
        return np.array(self.inner.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode([int(index) for index in ids], skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        self.inner.save(str(folder / "tokenizer.json"))


def _pieces(inner, text: str, special: Sequence[str], vocab_size: int) -> dict[str, int]:
    """Entries of a WordPiece vocabulary: merges of BPE, for which `h` in `the` is another character than `h` in `he`.

    The same ids every time: the library's own trainer of WordPiece numbers `##h` and its like in a random order, and
    settles ties between merges by these numbers.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    def words(line: str) -> str:
        found = inner.pre_tokenizer.pre_tokenize_str(inner.normalizer.normalize_str(line))
        known = (word for word, _ in found if max(word) < chr(0x10000))  # beyond, there is no room above CONTINUED
        return " ".join(word[0] + "".join(chr(CONTINUED + ord(one)) for one in word[1:]) for word in known)

    merges = Tokenizer(models.BPE())
    merges.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # A quarter of the entries at most for single characters: many rare ones would leave no room for words.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(special), limit_alphabet=vocab_size // 4, show_progress=False
    )
    merges.train_from_iterator(map(words, lines_of(text)), trainer)
    return {_piece(entry): index for entry, index in merges.get_vocab().items()}


def _piece(entry: str) -> str:
    """An entry as WordPiece writes it: `##` before what goes on a word."""
    inside = ord(entry[0]) >= CONTINUED
    return "##" * inside + "".join(chr(ord(one) - CONTINUED) if ord(one) >= CONTINUED else one for one in entry)
