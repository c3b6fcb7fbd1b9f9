"""Special tokens as each tokenizer has them, and what stands around a text."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from utils.data.special import Special, special_of
from utils.data.tokenizers import BPETokenizer, CharTokenizer, HFTokenizer, T5Tokenizer, WordPieceTokenizer

TEXT = "the cat sat on the mat;\nthe naive cat, again and again.\n" * 4
MARKS = Special(before=(1,), between=(2, 3), after=(4,))


def hugging_face(template: str | None, pair: str | None, **named) -> HFTokenizer:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<extra_id_0>", "<extra_id_1>"]
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.train_from_iterator(
        [TEXT], trainers.WordPieceTrainer(vocab_size=80, special_tokens=tokens, show_progress=False)
    )
    if template:
        marks = [(token, tokens.index(token)) for token in tokens]
        inner.post_processor = processors.TemplateProcessing(single=template, pair=pair, special_tokens=marks)
    return HFTokenizer(PreTrainedTokenizerFast(tokenizer_object=inner, **named))


@pytest.mark.parametrize(
    ("template", "pair", "expected"),
    [
        ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ((2,), (3,), (3,))),  # BERT
        ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]", ((2,), (3, 3), (3,))),  # RoBERTa
        ("$A [SEP]", "$A [SEP] $B [SEP]", ((), (3,), (3,))),  # T5
    ],
)
def test_what_a_hugging_face_tokenizer_puts_around_texts_is_found_by_asking_it(template, pair, expected):
    tokenizer = hugging_face(template, pair, unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]")
    special = special_of(tokenizer)
    assert (special.before, special.between, special.after) == expected
    assert (special.pad, special.mask, special.unknown, special.end) == (0, 4, 1, 3)
    assert special.sentinels == (5, 6)
    first, second = tokenizer.encode("the cat"), tokenizer.encode("again")
    assert special.around(first).tolist() == tokenizer.inner("the cat")["input_ids"]
    assert special.around(first, second).tolist() == tokenizer.inner("the cat", "again")["input_ids"]


def test_a_tokenizer_that_adds_nothing_gets_its_end_token_behind_a_text():
    special = special_of(hugging_face(None, None, unk_token="[UNK]", eos_token="[SEP]"))
    assert (special.before, special.between, special.after, special.end) == ((), (3,), (3,), 3)
    assert special.padding == 3  # no padding token: the end fills, and the mask marks it


def test_our_own_tokenizers_say_what_they_have():
    word = special_of(WordPieceTokenizer.train(TEXT, 300))
    assert (word.pad, word.unknown, word.mask, word.end) == (0, 1, 4, 3)
    assert word.around(np.array([9])).tolist() == [2, 9, 3]
    t5 = special_of(T5Tokenizer.train(TEXT, 400))
    assert (t5.pad, t5.end, len(t5.sentinels), t5.mask) == (0, 1, 100, None)
    assert special_of(BPETokenizer.train(TEXT, 300)) == Special(end=0, between=(0,), after=(0,), ids=frozenset({0}))
    characters = CharTokenizer("b\na")
    assert special_of(characters) == Special(end=0, between=(0,), after=(0,))
    assert special_of(CharTokenizer("ab")) == Special()


@pytest.mark.parametrize(
    ("lengths", "longest", "kept"),
    [
        ((3, 3), None, (3, 3)),
        ((3, 3), 10, (3, 3)),  # 6 and four marks
        ((9, 3), 10, (3, 3)),
        ((3, 9), 10, (3, 3)),
        ((1, 9), 10, (1, 5)),
        ((9, 1), 10, (5, 1)),
        ((9, 9), 11, (3, 4)),
    ],
)
def test_of_two_texts_the_longer_is_cut_first(lengths, longest, kept):
    first, second = np.arange(100, 100 + lengths[0]), np.arange(200, 200 + lengths[1])
    row = MARKS.around(first, second, longest).tolist()
    assert row == [1, *first[: kept[0]], 2, 3, *second[: kept[1]], 4]


def test_one_text_is_cut_at_its_end_and_keeps_its_marks():
    assert MARKS.around(np.arange(100, 120), None, 6).tolist() == [1, 100, 101, 102, 103, 4]
