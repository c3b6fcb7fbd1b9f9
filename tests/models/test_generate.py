"""Generation: cached against uncached, the choice of a token against other libraries, stops, seeds and edges."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.testing import assert_close
from transformers import (
    PreTrainedTokenizerFast,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from utils.data.tokenizers import CharTokenizer, HFTokenizer
from utils.models.generate import SamplingConfig, choose, filtered, generate, sample_temperatures, stream

GREEDY = SamplingConfig(temperature=0, max_new_tokens=25)
KINDS = [{"positions": "learned"}, {"positions": "sinusoidal"}, {"positions": "rotary", "num_kv_heads": 2}]
KINDS = [pytest.param(kind, id=kind["positions"]) for kind in [*KINDS, {"positions": "alibi"}]]
LETTERS = CharTokenizer("\nabcdefghijklmnopqrstuv")  # 23 characters, the vocabulary of the tiny model


def tokens(model, ids, config=GREEDY, mask=None, *, seed=0, **options) -> torch.Tensor:
    """(B, new) tokens of `stream`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(list(stream(model, ids, mask, config, generator=generator, **options)), dim=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 5, 12, 20])  # of the prompt; the model's context is 12
@pytest.mark.parametrize("temperature", [0, 2])
def test_cached_or_not_each_token_is_chosen_from_the_last_context_length_ones(make_gpt, kind, length, temperature):
    model, config = make_gpt(**kind), GREEDY.replace(temperature=temperature)
    ids = torch.randint(0, 23, (3, length), generator=torch.Generator().manual_seed(1))
    expected, generator = ids, torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(25):
            logits = model(expected[:, -12:])[:, -1]
            likeliest = logits.argmax(-1, keepdim=True)
            drawn = torch.multinomial((logits / 2).softmax(-1), 1, generator=generator)
            expected = torch.cat((expected, drawn if temperature else likeliest), dim=1)
    assert len(expected[:, length:].unique()) > (10 if temperature else 1)  # one token for ever would prove nothing
    for use_cache in (True, False):
        assert torch.equal(tokens(model, ids, config, use_cache=use_cache), expected[:, length:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("longest", ["somedeed", "fourthofaprils"])  # cached at first, or past the context at once
def test_each_row_of_a_padded_batch_goes_on_as_it_does_alone(make_gpt, kind, longest):
    model = make_gpt(**kind)
    prompts = ["abc", longest, "", "k"]
    together = generate(model, LETTERS, prompts, GREEDY)
    assert together == [generate(model, LETTERS, prompt, GREEDY) for prompt in prompts]
    assert len(set(together)) == len(prompts)
    assert all(len(text) == 25 for text in together)


def test_the_penalty_is_for_the_prompts_and_the_new_tokens_and_not_for_padding(make_gpt):
    model, config = make_gpt(), GREEDY.replace(repetition_penalty=1.5, max_new_tokens=8)
    ids = torch.tensor([[3, 4, 5, 6], [0, 0, 7, 8]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    expected, penalised = ids[1:, 2:], RepetitionPenaltyLogitsProcessor(1.5)
    with torch.no_grad():
        for _ in range(8):
            token = penalised(expected, model(expected)[:, -1]).argmax(-1, keepdim=True)
            expected = torch.cat((expected, token), dim=1)
    assert torch.equal(tokens(model, ids, config, mask)[1:], expected[:, 2:])


@pytest.fixture
def logits():
    return 4 * torch.randn(50, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("top_k", [None, 1, 7, 100])
@pytest.mark.parametrize("top_p", [None, 0.01, 0.5, 0.95])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_temperature_top_k_and_top_p_keep_what_transformers_keeps(logits, temperature, top_k, top_p):
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k is not None:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p is not None:
        expected = TopPLogitsWarper(top_p)(None, expected)
    assert_close(filtered(logits, SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)), expected)


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 4.0])
def test_the_repetition_penalty_is_that_of_transformers(logits, penalty):
    ids = torch.randint(0, 40, (50, 12), generator=torch.Generator().manual_seed(1))
    seen = torch.zeros(50, 40, dtype=torch.bool).scatter(1, ids, True)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
    greedy = SamplingConfig(temperature=0, repetition_penalty=penalty)
    assert torch.equal(choose(logits, seen, greedy, None), expected.argmax(-1))
    sampling = SamplingConfig(temperature=1, repetition_penalty=penalty)
    drawn = torch.multinomial(expected.softmax(-1), 1, generator=torch.Generator().manual_seed(2)).squeeze(1)
    assert torch.equal(choose(logits, seen, sampling, torch.Generator().manual_seed(2)), drawn)


def test_temperature_0_takes_the_likeliest_token(logits):
    assert torch.equal(choose(logits, logits > 99, SamplingConfig(temperature=0), None), logits.argmax(-1))


def test_sampling_follows_the_probabilities():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    rows = probabilities.log().expand(20_000, 4)
    drawn = choose(rows, rows > 0, SamplingConfig(temperature=1), torch.Generator().manual_seed(0))
    # The standard error of a share is at most sqrt(0.25 / 20000) = 0.0035.
    assert_close(drawn.bincount(minlength=4) / 20_000, probabilities, atol=0.015, rtol=0)


def test_equal_seeds_give_equal_texts_and_others_do_not(make_gpt):
    model, config = make_gpt(), SamplingConfig(max_new_tokens=30, temperature=2.0)
    texts = [generate(model, LETTERS, "abc", config, seed=seed) for seed in (1, 1, 2)]
    torch.manual_seed(99)  # the global state has no say
    assert texts[0] == texts[1] == generate(model, LETTERS, "abc", config, seed=1)
    assert texts[0] != texts[2]


def test_a_text_ends_before_the_first_of_its_stop_strings(make_gpt):
    model, prompts, config = make_gpt(), ["abc", "fog", "k"], SamplingConfig(temperature=2, max_new_tokens=25)
    whole = generate(model, LETTERS, prompts, config)

    def cut(text: str, stops: tuple[str, ...]) -> str:
        return text[: min([text.find(stop) for stop in stops if stop in text], default=len(text))]

    several = (whole[0][9:11], whole[1][4:7])  # within a text, longer than a token
    nested = (whole[0][4], whole[0][2:5])  # complete with the same token; the longer begins earlier
    for stops in (several, nested, ("no such text",)):
        assert generate(model, LETTERS, prompts, config.replace(stop=stops)) == [cut(text, stops) for text in whole]
    assert whole[0][4] not in whole[0][:4]
    assert [len(cut(text, several)) for text in whole] == [9, 4, 25]


def test_an_empty_prompt_starts_from_the_start_id_which_is_no_part_of_the_text(make_gpt):
    model = make_gpt()
    assert generate(model, LETTERS, "", GREEDY) == generate(model, LETTERS, "\n", GREEDY)
    assert len(generate(model, LETTERS, "", GREEDY)) == 25


def test_a_prompt_without_tokens_is_an_empty_prompt(make_gpt):
    vocabulary = {f"w{index}": index for index in range(22)} | {"<s>": 22}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = HFTokenizer(PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>"))
    assert len(tokenizer.encode("  ")) == 0
    assert generate(make_gpt(), tokenizer, "  ", GREEDY) == generate(make_gpt(), tokenizer, "<s>", GREEDY) != ""


@pytest.mark.parametrize("stop", [(), ("a",)])
def test_no_new_tokens_give_empty_texts(make_gpt, stop):
    config = SamplingConfig(max_new_tokens=0, stop=stop)
    assert generate(make_gpt(), LETTERS, ["abc", "", "a" * 30], config) == ["", "", ""]


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_while_generating_and_the_models_mode_is_given_back(make_gpt, training):
    model = make_gpt(dropout=0.5).train(training)
    text = generate(model, LETTERS, "abc", GREEDY)
    assert model.training is training
    assert generate(model, LETTERS, "abc", GREEDY.replace(stop=(text[3],))) == text[: text.index(text[3])]
    assert model.training is training  # after a text that ended early, too
    assert text == generate(model.eval(), LETTERS, "abc", GREEDY)


def test_samples_at_several_temperatures_differ_from_one_text_only_in_it(make_gpt):
    model = make_gpt()
    samples = sample_temperatures(model, LETTERS, "abc", GREEDY, (0.0, 2.0), seed=3)
    assert samples.texts[0.0] == generate(model, LETTERS, "abc", GREEDY)
    assert samples.texts[2.0] == generate(model, LETTERS, "abc", GREEDY.replace(temperature=2.0), seed=3)
    assert str(samples).startswith("temperature 0.0:\n" + samples.texts[0.0])
