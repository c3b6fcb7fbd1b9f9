"""Tokenizers: round trips, ids, what is saved, and what is refused."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from utils.data.text import CorpusConfig, load_corpus
from utils.data.tokenizers import (
    BPETokenizer,
    CharTokenizer,
    HFTokenizer,
    T5Tokenizer,
    TokenizerConfig,
    TokenizerError,
    WordPieceTokenizer,
    build_tokenizer,
    load_tokenizer,
    version_of,
)

TEXT = "the cat sat on the mat;\n\tthe naïve café cat, again and again.\n" * 4


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    """The folder of a small tokenizer of the kind that puts <s> and </s> around each text."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    marks = ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(special_tokens=marks, initial_alphabet=alphabet, vocab_size=280, show_progress=False)
    inner.train_from_iterator([TEXT], trainer)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    folder = tmp_path_factory.mktemp("hf")
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.fixture(params=["char", "bytes", "bpe", "hf"])
def tokenizer(request):
    config = {
        "char": {"kind": "char"},
        "bytes": {"kind": "char", "byte_fallback": True},
        "bpe": {"kind": "bpe", "vocab_size": 300},
        "hf": {"kind": "hf"},
    }[request.param]
    if request.param == "hf":
        config["name"] = str(request.getfixturevalue("hugging_face"))
    return build_tokenizer(TokenizerConfig(**config), TEXT, TEXT)


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Strings over all of Unicode but the surrogates, half of the characters from the text itself."""
    draw = random.Random(seed)

    def character() -> str:
        point = draw.choice([draw.randrange(128), draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)])
        return draw.choice([draw.choice(TEXT), chr(point)])

    return ["".join(character() for _ in range(draw.randrange(40))) for _ in range(count)]


def test_decoding_an_encoding_gives_the_text_back(tokenizer):
    for text in (TEXT, TEXT[5:23], "a", ""):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert ids.dtype == np.int64
        assert ids.shape == (len(ids),)
        assert all(0 <= index < tokenizer.vocab_size for index in ids)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe", "hf"], indirect=True)
def test_bytes_make_any_unicode_text_come_back(tokenizer):
    for text in [*random_texts(300), "<|endoftext|>", "\r\n\x00\ufeff", "e\u0301 é \U0001f469\u200d\U0001f680"]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids.tolist()) == text
        assert ids.max(initial=0) < tokenizer.vocab_size


def test_a_saved_tokenizer_is_the_same_when_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert (loaded.vocab_size, loaded.start_id) == (tokenizer.vocab_size, tokenizer.start_id)
    np.testing.assert_array_equal(loaded.encode(TEXT), tokenizer.encode(TEXT))
    assert loaded.decode(loaded.encode(TEXT)) == TEXT


def test_characters_get_ids_in_code_point_order_and_a_text_starts_after_a_line_break():
    tokenizer = CharTokenizer("hello\nworld")
    assert tokenizer.characters == "\ndehlorw"
    assert tokenizer.encode("hold").tolist() == [3, 5, 4, 1]
    assert tokenizer.decode([tokenizer.start_id]) == "\n"


def test_characters_outside_the_vocabulary_are_counted_and_named():
    with pytest.raises(
        TokenizerError, match=r"^3 characters .* vocabulary of 3: 'd', '☃'\. .*data\.tokenizer\.byte_fallback=true"
    ):
        CharTokenizer("abc").encode("ab☃cd☃")
    with pytest.raises(TokenizerError, match=r"^1 character is outside .*rows\.tokenizer\.byte_fallback=true"):
        CharTokenizer("abc").encode("abd")


def test_byte_fallback_spells_only_unknown_characters():
    tokenizer = CharTokenizer("abc", byte_fallback=True)
    assert tokenizer.vocab_size == 3 + 256
    # é is 0xc3 0xa9 in UTF-8; byte b has the id 3 + b
    assert tokenizer.encode("aéc").tolist() == [0, 3 + 0xC3, 3 + 0xA9, 2]


def test_half_a_character_decodes_to_a_replacement_mark_and_harms_no_other():
    tokenizer = CharTokenizer("abc", byte_fallback=True)
    assert tokenizer.decode([0, 3 + 0xC3, 2]) == "a\ufffdc"


def test_bpe_learns_no_more_entries_than_asked_for():
    tokenizer = BPETokenizer.train(TEXT, 270)
    assert tokenizer.vocab_size == 270
    assert tokenizer.decode([tokenizer.start_id]) == "<|endoftext|>"


def test_a_hugging_face_tokenizer_adds_no_special_tokens(hugging_face):
    tokenizer = HFTokenizer.load(str(hugging_face))
    assert tokenizer.inner("the cat")["input_ids"][0] == tokenizer.inner.bos_token_id  # it would, unasked
    assert not set(tokenizer.encode("the cat")) & set(tokenizer.inner.all_special_ids)
    assert tokenizer.start_id == tokenizer.inner.bos_token_id


def test_a_tokenizer_that_cannot_be_had_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ValueError, match=r"needs tokenizer\.name"):
        TokenizerConfig(kind="hf")
    with pytest.raises(TokenizerError, match="could not be loaded"):
        HFTokenizer.load(str(tmp_path))
    with pytest.raises(TokenizerError, match=r"No tokenizer in .*expected tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", [WordPieceTokenizer, T5Tokenizer, BPETokenizer])
def test_a_trained_tokenizer_is_loaded_as_what_it_was(kind, tmp_path):
    tokenizer = kind.train(TEXT, 400)
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert type(again) is kind
    assert again.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()
    assert (again.vocab_size, again.start_id) == (tokenizer.vocab_size, tokenizer.start_id)


def test_special_tokens_come_first_in_the_vocabulary():
    for kind in (WordPieceTokenizer, T5Tokenizer, BPETokenizer):
        inner = kind.train(TEXT, 400).inner
        assert [inner.token_to_id(token) for token in kind.SPECIAL] == list(range(len(kind.SPECIAL)))


def test_wordpiece_splits_words_as_bert_does():
    tokenizer = WordPieceTokenizer.train("low lower lowest newer newest\n" * 20, 257)
    assert tokenizer.decode(tokenizer.encode("Lower, LOWEST")) == "lower [UNK] lowest"  # no comma was learned
    pieces = [tokenizer.inner.id_to_token(index) for index in tokenizer.encode("lowerest")]
    assert "".join(piece.removeprefix("##") for piece in pieces) == "lowerest"
    assert all(piece.startswith("##") for piece in pieces[1:])
    assert tokenizer.encode("naïve")[0] == tokenizer.encode("naive")[0]


def test_t5_needs_room_for_bytes_and_special_tokens():
    assert T5Tokenizer.train(TEXT, 358).vocab_size == 358
    with pytest.raises(ValueError, match="at least 358"):
        TokenizerConfig(kind="t5", vocab_size=357)


def test_wordpiece_learns_the_same_ids_every_time_and_the_entries_of_the_librarys_trainer():
    text = load_corpus(CorpusConfig()).text
    learned = [WordPieceTokenizer.train(text, 600).inner.get_vocab() for _ in range(3)]
    assert learned[0] == learned[1] == learned[2]
    assert [*sorted(learned[0], key=learned[0].get)[:5]] == [*WordPieceTokenizer.SPECIAL]
    oracle = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    oracle.normalizer, oracle.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = [*WordPieceTokenizer.SPECIAL]
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, limit_alphabet=150, show_progress=False)
    oracle.train_from_iterator(text.splitlines(keepends=True), trainer)
    differing = set(learned[0]) ^ set(oracle.get_vocab())
    assert len(differing) <= 6  # ties at the end of the vocabulary, which the library settles by chance


def test_a_tokenizer_of_the_hub_is_asked_for_again_after_a_fault_that_may_pass(hugging_face, monkeypatch):
    asked, pauses = [], []

    def from_pretrained(name):
        asked.append(name)
        if len(asked) < 3:
            raise OSError("cannot connect") from ConnectionResetError("reset")
        return PreTrainedTokenizerFast.from_pretrained(hugging_face)

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", from_pretrained)
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    assert HFTokenizer.load("someone/something").start_id == 0  # <s>
    assert (asked, pauses) == (["someone/something"] * 3, [1, 2])


@pytest.mark.parametrize("kind", ["char", "bpe", "t5", "wordpiece"])
def test_a_saved_tokenizer_is_the_one_that_was_saved_whatever_the_text_and_has_a_version(kind, tmp_path):
    sizes = {} if kind == "char" else {"vocab_size": 400}
    for name, text in (("one", TEXT), ("other", "entirely different words " * 9)):
        (tmp_path / name).mkdir()
        build_tokenizer(TokenizerConfig(kind=kind, **sizes), text, text).save(tmp_path / name)
    one, other = (TokenizerConfig(kind="saved", name=str(tmp_path / name)) for name in ("one", "other"))
    saved, again = load_tokenizer(tmp_path / "one"), build_tokenizer(one, "xyz", "xyz")
    assert type(again) is type(saved)
    assert again.encode("the cat").tolist() == saved.encode("the cat").tolist()
    assert version_of(one) != version_of(other)
    assert len(version_of(one)) == 12
    assert version_of(TokenizerConfig(kind=kind, **sizes)) is None


def test_a_saved_tokenizer_needs_its_folder(tmp_path):
    with pytest.raises(ValueError, match=r"kind=saved needs tokenizer\.name"):
        TokenizerConfig(kind="saved")
    with pytest.raises(TokenizerError, match="No tokenizer in"):
        build_tokenizer(TokenizerConfig(kind="saved", name=str(tmp_path)), "", "")
