"""What a model states of itself, where it is read and when it is refused; its kind, declared or told by a call."""

from __future__ import annotations

from types import SimpleNamespace

import numpy
import pytest
import torch
import transformers as hf
from torch import nn

from utils.models.facts import (
    CHANNELS,
    CONTEXT,
    IMAGE_SIZE,
    KINDS,
    PADDING,
    SEES_LATER,
    VOCABULARY,
    Facts,
    declared_kind,
    measured_kind,
    without_offset,
)
from utils.models.signature import AdapterError, inspect_forward, probe


class Net(nn.Module):
    """Holds what it is given; `forward` is of no matter."""

    def __init__(self, *modules: nn.Module, **attributes):
        super().__init__()
        self.inside = nn.ModuleList(modules)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x): ...


def named(name: str, forward) -> nn.Module:
    return type(name, (Net,), {"forward": forward})()


@pytest.mark.parametrize("names", [VOCABULARY, CONTEXT, PADDING])
def test_each_usual_name_is_read_from_a_config_a_models_config_and_its_attributes(names):
    for name in names:
        for facts, place in (
            (Facts({name: 7}, Net()), f"{name} in the config"),
            (Facts({}, Net(config={name: 7})), f"{name} in the model's config"),
            (Facts({}, Net(hparams=SimpleNamespace(**{name: 7}))), f"{name} in the model's config"),
            (Facts({}, Net(**{name: 7})), f"the model's {name}"),
        ):
            assert facts.integer(names) == 7
            assert list(facts.read.values()) == [place]


def test_the_config_goes_before_the_models_config_and_that_before_its_attributes():
    model = Net(config=SimpleNamespace(vocab_size=2, block_size=5), vocab_size=3, seq_len=6, pad_id=4)
    facts = Facts({"vocab_size": 1, "max_len": None}, model)
    assert (facts.integer(VOCABULARY), facts.integer(CONTEXT), facts.integer(PADDING)) == (1, 5, 4)
    assert facts.read["context"] == "block_size in the model's config"


@pytest.mark.parametrize("value", ["512", True, 512.0, [512], 0, -1])
def test_a_size_that_is_no_whole_number_above_zero_is_refused_and_its_place_named(value):
    with pytest.raises(AdapterError, match="vocab_size in the config is .*; expected a whole number of at least 1"):
        Facts({"vocab_size": value}, Net()).integer(VOCABULARY)
    with pytest.raises(AdapterError, match="block_size in the model's config is .*; expected a whole number"):
        Facts({}, Net(config={"block_size": value})).context()


def test_a_padding_id_may_be_zero_or_negative_but_no_string_or_bool():
    assert [Facts({"pad_id": one}, Net()).integer(PADDING) for one in (0, -1, 3)] == [0, -1, 3]
    for wrong in ("3", False):
        with pytest.raises(AdapterError, match="pad_id in the config is .*; expected a whole number"):
            Facts({"pad_id": wrong}, Net()).integer(PADDING)


def test_numbers_of_numpy_are_whole_numbers():
    found = Facts({"vocab_size": numpy.int64(9)}, Net()).integer(VOCABULARY)
    assert found == 9
    assert type(found) is int


def test_the_text_of_a_padding_token_is_no_id():
    assert Facts({"pad_token": "<pad>"}, Net(pad_idx=2)).integer(PADDING) == 2
    assert Facts({"pad_token": 1}, Net()).integer(PADDING) == 1


def test_methods_and_modules_of_a_usual_name_are_passed_over():
    model = Net(vocab_size=lambda: 5, block_size=nn.Linear(1, 1))
    facts = Facts({}, model)
    assert facts.integer(VOCABULARY) is None
    with pytest.raises(AdapterError, match="context length"):
        facts.context()


def test_a_context_that_nothing_states_is_asked_for_with_the_ways_to_give_it():
    wanted = r"The context length of Net is not known: its config has none of context_length, max_seq_len,.*"
    for model in (Net(), Net(config=SimpleNamespace(model_type="gpt")), Net(config={"model_type": "gpt"})):
        with pytest.raises(AdapterError, match=wanted + r"context_length=N, or context_length=null if any length is r"):
            Facts({}, model).context()


def test_null_in_the_config_says_that_there_is_no_limit_whatever_the_model_states():
    facts = Facts({"context_length": None}, Net(block_size=8))
    assert facts.context() is None
    assert facts.read["context"] == "context_length is null in the config"
    assert Facts({"context_length": None, "block_size": 4}, Net()).context() == 4


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (hf.GPT2Config(n_positions=77), 77),
        (hf.BertConfig(max_position_embeddings=77), 77),
        (hf.BartConfig(max_position_embeddings=77), 77),
        (hf.DistilBertConfig(max_position_embeddings=77), 77),
        (hf.T5Config(), None),  # relative positions
        (hf.MambaConfig(), None),  # none at all
        (hf.XLNetConfig(), None),  # its -1
    ],
)
def test_configs_of_transformers_are_read_through_their_attribute_maps(config, limit):
    for given in ({}, config.to_dict()):
        assert Facts(given, Net(config=config)).context() == limit


def test_positions_that_begin_after_the_padding_index_shorten_the_context():
    size = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    for config, limit in ((hf.RobertaConfig(pad_token_id=1), 8), (hf.BertConfig(pad_token_id=1), 10)):
        config.update({**size, "max_position_embeddings": 10})
        model = hf.AutoModel.from_config(config)
        facts = Facts({}, model)
        stated = facts.context()
        assert stated == 10
        assert without_offset(model, stated, facts.read) == limit  # 10 rows, less 0 and 1
        model(torch.full((1, limit), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, limit + 1), 5))


@pytest.mark.parametrize(
    ("config", "model", "image"),
    [
        ({"image_size": 8, "channels": 1}, Net(), (1, 8, 8)),
        ({"img_size": [8, 6], "in_chans": 2}, Net(), (2, 8, 6)),
        ({"image_size": numpy.int64(8)}, Net(nn.Conv2d(3, 4, 1)), (3, 8, 8)),
        ({}, Net(config=hf.ViTConfig(image_size=12, num_channels=2)), (2, 12, 12)),
        ({}, Net(image_size=(8, 6), channels=5), (5, 8, 6)),
        ({"image_size": 8}, Net(nn.Conv2d(3, 64, 1), in_channels=512), (3, 8, 8)),  # a counter of the ResNet's builder
        ({"image_size": 8, "channels": 1}, Net(nn.Conv2d(3, 64, 1)), (1, 8, 8)),
    ],
)
def test_the_size_of_images_is_read(config, model, image):
    assert Facts(config, model).image() == image


def test_where_the_size_of_images_was_read_is_said():
    facts = Facts({"image_size": 8}, Net(nn.Conv2d(3, 4, 1)))
    facts.image()
    assert facts.read == {"image": "image_size in the config, channels of its first nn.Conv2d"}


@pytest.mark.parametrize(
    ("config", "model", "message"),
    [
        ({}, Net(), "image_size and channels of Net cannot be known.*image_size=N channels=N"),
        ({}, Net(nn.Conv2d(3, 4, 1)), r"^image_size of Net cannot be known.*: image_size=N\.$"),
        ({"image_size": 8}, Net(), r"^channels of Net cannot be known.*: channels=N\.$"),
        ({"image_size": "32", "channels": 3}, Net(), "image_size in the config is '32'; expected a whole number, or"),
        ({"image_size": True, "channels": 3}, Net(), "image_size in the config is True"),
        ({"image_size": (3, 8, 8), "channels": 3}, Net(), r"is \(3, 8, 8\); expected a whole number, or two: height"),
        ({"image_size": 0, "channels": 3}, Net(), "image_size in the config is 0"),
        ({"image_size": 8, "channels": "3"}, Net(), "channels in the config is '3'; expected a whole number of at l"),
    ],
)
def test_a_size_of_images_that_is_not_known_or_no_size_is_asked_for(config, model, message):
    with pytest.raises(AdapterError, match=message):
        Facts(config, model).image()


def kind_of(model: nn.Module, kind: str = "", config: dict | None = None) -> tuple[str, str]:
    return declared_kind(model, kind, Facts(config or {}, model), inspect_forward(model))


def test_the_one_who_asks_goes_before_the_config_and_that_before_the_model():
    model = Net(kind="masked_lm")
    assert kind_of(model, "causal_lm", {"kind": "seq2seq"}) == ("causal_lm", "declared")
    assert kind_of(model, "", {"kind": "seq2seq"}) == ("seq2seq", "declared in the config")
    assert kind_of(model) == ("masked_lm", "declared by the model")


def test_a_kind_that_is_none_is_refused_unless_it_is_the_models_own_word():
    with pytest.raises(AdapterError, match=r"kind='gpt' \(declared\): expected one of causal_lm, masked_lm, seq2seq"):
        kind_of(Net(), "gpt")
    with pytest.raises(AdapterError, match=r"kind='decoder' \(declared in the config\).*Declare its kind"):
        kind_of(Net(), "", {"kind": "decoder"})
    assert kind_of(Net(kind="lstm")) == ("", "")  # an attribute of that name means something else


@pytest.mark.parametrize(
    ("name", "forward", "kind"),
    [
        ("LlamaForCausalLM", lambda self, input_ids: 0, "causal_lm"),
        ("GPT2LMHeadModel", lambda self, input_ids: 0, "causal_lm"),
        ("BertForMaskedLM", lambda self, input_ids: 0, "masked_lm"),
        ("T5ForConditionalGeneration", lambda self, input_ids, decoder_input_ids=None: 0, "seq2seq"),
        ("Gemma3ForConditionalGeneration", lambda self, input_ids: 0, ""),  # no encoder; the name is older than it
        ("BartForSequenceClassification", lambda self, input_ids, decoder_input_ids=None: 0, "classifier"),
        ("ViTForImageClassification", lambda self, pixel_values: 0, "image_classifier"),
    ],
)
def test_a_class_of_transformers_is_known_by_its_name(name, forward, kind):
    found, why = kind_of(named(name, forward))
    assert found == kind
    assert why == (f"by its class's name, {name}" if kind else "")


def test_a_kind_follows_from_the_parameters_of_forward():
    assert kind_of(named("A", lambda self, img: 0)) == ("image_classifier", "forward takes img")
    assert kind_of(named("A", lambda self, img, x=None: 0)) == ("image_classifier", "forward takes img")
    assert kind_of(named("B", lambda self, src, trg: 0)) == ("seq2seq", "forward takes trg")
    assert kind_of(named("C", lambda self, input_ids=None, pixel_values=None: 0)) == ("", "")


@pytest.mark.parametrize(
    ("model", "config", "kind"),
    [
        (Net(nn.Conv2d(3, 4, 1)), {}, "image_classifier"),
        (Net(nn.Linear(3, 4)), {"image_size": 8}, "image_classifier"),
        (Net(nn.Conv2d(3, 4, 1), nn.Embedding(16, 4), image_size=8), {}, "image_classifier"),  # embeds its positions
        (Net(nn.Conv2d(3, 4, 1), nn.Embedding(16, 4)), {}, ""),
        (Net(nn.Embedding(16, 4), image_size=8), {"vocab_size": 16}, ""),
        (Net(type("Scaled", (nn.Embedding,), {})(16, 4), nn.Conv2d(1, 1, 1)), {}, ""),
        (Net(nn.Linear(3, 4)), {}, ""),
    ],
)
def test_a_forward_of_x_reads_images_where_its_modules_or_its_config_say_so(model, config, kind):
    assert kind_of(model, config=config)[0] == kind


class Tiny(nn.Module):
    """Embedding, one mixing of positions, head: `mix` is a function of (B, T, C)."""

    def __init__(self, mix, *, zero: str = "", pool: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.branch, self.head = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 9)
        self.mix, self.pool = mix, pool
        if zero:
            nn.init.zeros_(getattr(self, zero).weight)
            nn.init.zeros_(getattr(self, zero).bias)

    def forward(self, ids):
        x = self.embedding(ids)
        x = self.head(x + self.branch(self.mix(x)))
        return x.mean(1) if self.pool else x


def ahead(x):
    return x.flip(1).cumsum(1).flip(1)


def behind(x):
    return x.cumsum(1)


def everywhere(x):
    return x.mean(1, keepdim=True)


def nowhere(x):
    return x


IDS = torch.tensor([[1, 2, 2], [2, 1, 2]])


def measured(model: nn.Module, ids: torch.Tensor = IDS) -> tuple[str, str]:
    signature, batch = inspect_forward(model), {"input_ids": ids}
    return measured_kind(model, signature, batch, probe(model, signature, batch)[0])


@pytest.mark.parametrize("zero", ["", "head", "branch"])
@pytest.mark.parametrize(("mix", "kind"), [(behind, "causal_lm"), (everywhere, "masked_lm"), (ahead, "masked_lm")])
def test_what_the_first_positions_see_tells_the_kind_even_at_a_zero_initialisation(mix, kind, zero):
    model = Tiny(mix, zero=zero)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found, why = measured(model)
    assert found == kind
    assert why == (SEES_LATER if kind == "masked_lm" else "inferred: no position sees a later token")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_model_whose_positions_see_themselves_alone_is_a_causal_one():
    assert measured(Tiny(nowhere))[0] == "causal_lm"
    assert measured(Tiny(behind), torch.tensor([[1], [2]]))[0] == "causal_lm"


def test_a_weak_sight_of_the_future_is_seen():
    assert measured(Tiny(lambda x: behind(x) + 1e-4 * ahead(x)))[0] == "masked_lm"


def test_logits_of_minus_infinity_hide_nothing():
    class Barred(Tiny):
        def forward(self, ids):
            return super().forward(ids).index_fill(-1, torch.tensor([0]), -torch.inf)

    assert measured(Barred(behind))[0] == "causal_lm"
    assert measured(Barred(everywhere))[0] == "masked_lm"


def test_one_output_a_row_is_a_classifiers():
    assert measured(Tiny(everywhere, pool=True)) == ("classifier", "inferred: one output a row")


def test_another_shape_is_refused_with_both_shapes():
    class Last(Tiny):
        def forward(self, ids):
            return super().forward(ids)[:, -1:]

    message = r"gave an output of shape \(2, 1, 9\) for ids of shape \(2, 3\); expected \(2, 3, V\) or \(2, classes\)"
    with pytest.raises(AdapterError, match=message):
        measured(Last(behind))


def test_the_names_of_sizes_do_not_overlap():
    names = [name for group in (VOCABULARY, CONTEXT, PADDING, IMAGE_SIZE, CHANNELS) for name in group]
    assert len(names) == len(set(names))
    assert len(KINDS) == 5
