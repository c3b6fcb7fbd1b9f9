"""A tokenizer against a model: what is found, and embeddings that grow only where that is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from utils.data.fitting import fit_embeddings, tokenizer_checks
from utils.data.tokenizers import BPETokenizer, CharTokenizer, T5Tokenizer, TokenizerError, WordPieceTokenizer

TEXT = "the cat sat on the mat;\nthe naive cat, again and again.\n" * 4
WORDS = WordPieceTokenizer.train(TEXT, 300)


def bert(vocab_size: int) -> BertForMaskedLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return BertForMaskedLM(BertConfig(vocab_size=vocab_size, **sizes)).eval()


def statuses(*arguments, **keywords) -> list[str]:
    return [check.status for check in tokenizer_checks(*arguments, **keywords)]


def test_a_tokenizer_that_fits_passes():
    assert statuses(WORDS, "masked_lm", bert(WORDS.vocab_size), [TEXT]) == ["pass"] * 3
    assert statuses(T5Tokenizer.train(TEXT, 400), "seq2seq", None, [TEXT]) == ["skip", "pass", "pass"]


def test_what_does_not_fit_fails():
    small = tokenizer_checks(WORDS, "masked_lm", bert(WORDS.vocab_size - 1), [TEXT])[0]
    assert small.status == "fail"
    assert "source.resize_embeddings=true" in small.summary  # what a person sets
    assert statuses(BPETokenizer.train(TEXT, 300), "masked_lm")[1] == "fail"  # no mask
    assert statuses(CharTokenizer("ab"), "seq2seq", texts=["ab", "abc"])[1:] == ["fail", "warn"]  # no end; c is unknown


def test_special_tokens_are_told_by_their_ids():
    special = tokenizer_checks(T5Tokenizer.train(TEXT, 400), "seq2seq")[1]
    assert special.summary == "padding (id 0), end (id 1) exist"


def test_the_round_trip_tells_whole_texts_from_their_words_from_neither():
    check = tokenizer_checks(WORDS, "masked_lm", None, ["the cat", "The  Cat.", "\u2603 snow"])[2]
    assert check.table["comes back"].tolist() == ["wholly", "its words", "no"]


def test_an_embedding_that_is_too_small_is_resized_only_where_asked():
    small = WORDS.vocab_size - 5
    model = bert(small)
    old = model.get_input_embeddings().weight.detach().clone()
    with pytest.raises(TokenizerError, match=rf"{WORDS.vocab_size} ids and .* {small} rows.*resize_embeddings=true"):
        fit_embeddings(model, WORDS)
    assert torch.equal(model.get_input_embeddings().weight, old)
    assert fit_embeddings(model, WORDS, resize=True) == WORDS.vocab_size
    assert torch.equal(model.get_input_embeddings().weight[:small], old)
    assert model(torch.tensor([[WORDS.vocab_size - 1]])).logits.shape[-1] == WORDS.vocab_size


def test_room_to_spare_is_left_as_it_is():
    model = bert(500)
    assert fit_embeddings(model, WORDS, resize=True) == 500
    assert fit_embeddings(model, WORDS) == 500


def test_a_model_that_cannot_be_resized_is_refused_with_the_size_to_build_it_with():
    model = nn.Sequential(nn.Embedding(3, 4))
    with pytest.raises(
        TokenizerError, match=f"Sequential has no resize_token_embeddings.*vocab_size={WORDS.vocab_size}"
    ):
        fit_embeddings(model, WORDS, resize=True)
    with pytest.raises(TokenizerError, match="has no nn.Embedding"):
        fit_embeddings(nn.Linear(2, 2), WORDS)
