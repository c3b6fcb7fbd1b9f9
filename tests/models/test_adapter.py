"""Any model behind one boundary: what is learned of it, how it is called, its batches, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import math
import random
from types import SimpleNamespace

import numpy
import pytest
import torch
import transformers as hf
from torch import nn
from torch.testing import assert_close

from utils.core.repro import rng_state
from utils.models.adapter import Adapter, adapt
from utils.models.signature import AdapterError

V, T, C = 29, 12, 16
SIZES = {"vocab_size": V, "context_length": T}


class Recurrent(nn.Module):
    """A plain LSTM language model, as PyTorch's examples write it: logits and the state."""

    def __init__(self, **options):
        super().__init__()
        self.embed = nn.Embedding(V, C, padding_idx=0)
        self.lstm = nn.LSTM(C, C, batch_first=True, **options)
        self.out = nn.Linear(C * (2 if options.get("bidirectional") else 1), V)

    def forward(self, input, hidden=None):
        x, hidden = self.lstm(self.embed(input), hidden)
        return self.out(x), hidden


class Encoder(nn.Module):
    """nn.TransformerEncoder with learned positions; a language model, or a classifier of the mean."""

    def __init__(self, *, causal: bool = False, classes: int = 0):
        super().__init__()
        self.embed, self.places = nn.Embedding(V, C), nn.Embedding(T, C)
        layer = nn.TransformerEncoderLayer(C, 2, 2 * C, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.out, self.causal, self.classes = nn.Linear(C, classes or V), causal, classes

    def forward(self, x, mask=None):
        length = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length) if self.causal else mask
        x = self.encoder(self.embed(x) + self.places(torch.arange(length)), mask=mask)
        return self.out(x.mean(1) if self.classes else x)


class NanoGPT(nn.Module):
    """nanoGPT's forward: the last position's logits alone, unless targets are given."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=V, block_size=T)
        self.body = Encoder(causal=True)

    def forward(self, idx, targets=None):
        logits = self.body(idx)
        if targets is None:
            return logits[:, [-1], :], None
        return logits, nn.functional.cross_entropy(logits.view(-1, V), targets.view(-1), ignore_index=-1)


class Lecture(nn.Module):
    """The forward of Karpathy's lecture: with targets, the logits are flattened to (B * T, V)."""

    block_size = T

    def __init__(self):
        super().__init__()
        self.body = Encoder(causal=True)

    def forward(self, idx, targets=None):
        logits = self.body(idx)
        if targets is None:
            return logits, None
        return logits.view(-1, V), nn.functional.cross_entropy(logits.view(-1, V), targets.view(-1))


class Translator(nn.Module):
    """nn.Transformer with a vocabulary of its own on each side."""

    def __init__(self, source: int = V, target: int = 17):
        super().__init__()
        self.source, self.target = nn.Embedding(source, C), nn.Embedding(target, C)
        self.body = nn.Transformer(C, 2, 1, 1, 2 * C, batch_first=True)
        self.out = nn.Linear(C, target)

    def forward(self, src, tgt):
        mask = nn.Transformer.generate_square_subsequent_mask(tgt.shape[1])
        return self.out(self.body(self.source(src), self.target(tgt), tgt_mask=mask))


class Packed(nn.Module):
    """Leaves the padding out by packing: padding on every row shortens its output."""

    max_len = T

    def __init__(self, padding: int = 1):
        super().__init__()
        self.pad_idx = padding
        self.embed = nn.Embedding(V, C, padding_idx=padding)
        self.lstm, self.out = nn.LSTM(C, C, batch_first=True), nn.Linear(C, V)

    def forward(self, tokens):
        lengths = (tokens != self.pad_idx).sum(1)
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
        return self.out(nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0])


class Convolution(nn.Module):
    def __init__(self, channels: int = 3, classes: int = 5):
        super().__init__()
        self.in_channels = 64  # as ResNets count while they are built
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.out = nn.Linear(8, classes)

    def forward(self, x):
        return self.out(self.body(x))


def small(config: type, **fields) -> hf.PretrainedConfig:
    shape = {"hidden_size": C, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 2 * C}
    return config(**{**shape, "vocab_size": V, "max_position_embeddings": T, **fields})


def transformers_model(name: str) -> nn.Module:
    sides = {f"{side}_{what}": 1 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    bart = {"vocab_size": V, "d_model": C, **sides, "encoder_ffn_dim": C, "decoder_ffn_dim": C}
    return {
        "GPT-2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=V, n_embd=C, n_layer=1, n_head=2, n_positions=T)),
        "Llama": lambda: hf.LlamaForCausalLM(small(hf.LlamaConfig)),
        "Llama with padding -1": lambda: hf.LlamaForCausalLM(small(hf.LlamaConfig, pad_token_id=-1)),
        "BERT": lambda: hf.BertForMaskedLM(small(hf.BertConfig)),
        "BERT of hidden states": lambda: hf.BertModel(small(hf.BertConfig)),
        "BERT for pretraining": lambda: hf.BertForPreTraining(small(hf.BertConfig)),
        "BERT classifier": lambda: hf.BertForSequenceClassification(small(hf.BertConfig, num_labels=3)),
        "RoBERTa": lambda: hf.RobertaForMaskedLM(small(hf.RobertaConfig)),
        "BART": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**bart, max_position_embeddings=T)),
        "BART of hidden states": lambda: hf.BartModel(hf.BartConfig(**bart, max_position_embeddings=T)),
        "T5": lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(vocab_size=V, d_model=C, d_kv=8, d_ff=C, num_layers=1, num_heads=2)
        ),
        "ViT": lambda: hf.ViTForImageClassification(
            small(hf.ViTConfig, image_size=8, patch_size=4, num_channels=2, num_labels=7)
        ),
    }[name]()


NULL = {"context_length": None}
# model, config -> kind, how it is known, vocabulary, context, padding, outputs, where the logits were
WILD = {
    "LSTM": (Recurrent, NULL, "causal_lm", "inferred", V, None, 0, V, "output[0]"),
    "two-way LSTM": (lambda: Recurrent(bidirectional=True), NULL, "masked_lm", "inferred", V, None, 0, V, "output[0]"),
    "encoder": (Encoder, {"max_len": T}, "masked_lm", "inferred", V, T, None, V, "output"),
    "causal encoder": (lambda: Encoder(causal=True), {"max_len": T}, "causal_lm", "inferred", V, T, None, V, "output"),
    "classifier": (lambda: Encoder(classes=4), {"max_len": T}, "classifier", "inferred", V, T, None, 4, "output"),
    "nanoGPT": (NanoGPT, {}, "causal_lm", "inferred", V, T, None, V, "output[0], every position's because"),
    "lecture": (Lecture, {}, "causal_lm", "inferred", V, T, None, V, "output[0]"),
    "translator": (Translator, NULL, "seq2seq", "forward takes tgt", 29, None, None, 17, "output"),
    "packed": (Packed, {}, "causal_lm", "inferred", V, T, 1, V, "output"),
    "packed from 0": (lambda: Packed(0), {}, "causal_lm", "inferred", V, T, 0, V, "output"),
    "DataParallel": (lambda: nn.DataParallel(Encoder()), {"max_len": T}, "masked_lm", "inferred", V, T, None, V, "out"),
    **{
        f"transformers' {name}": (lambda name=name: transformers_model(name), {}, *facts)
        for name, *facts in (
            ("GPT-2", "causal_lm", "by its class's name", V, T, None, V, "logits"),
            ("Llama", "causal_lm", "by its class's name", V, T, None, V, "logits"),
            ("Llama with padding -1", "causal_lm", "by its class's name", V, T, V - 1, V, "logits"),
            ("BERT", "masked_lm", "by its class's name", V, T, 0, V, "logits"),
            ("BERT of hidden states", "masked_lm", "inferred", V, T, 0, C, "last_hidden_state"),
            ("BERT for pretraining", "masked_lm", "inferred", V, T, 0, V, "output['prediction_logits']"),
            ("BERT classifier", "classifier", "by its class's name", V, T, 0, 3, "logits"),
            ("RoBERTa", "masked_lm", "by its class's name", V, T - 2, 1, V, "logits"),  # positions from 2 on
            ("BART", "seq2seq", "by its class's name", V, T, 1, V, "logits"),
            ("BART of hidden states", "seq2seq", "forward takes decoder_input_ids", V, T, 1, C, "last_hidden_state"),
            ("T5", "seq2seq", "by its class's name", V, None, 0, V, "logits"),
        )
    },
}


@pytest.mark.parametrize("name", WILD)
def test_what_a_model_is_follows_from_what_it_says_and_does(name):
    build, config, kind, why, vocabulary, limit, padding, outputs, where = WILD[name]
    torch.manual_seed(0)
    adapter = adapt(build(), config=config)
    assert adapter.kind == kind
    assert adapter.read["kind"].startswith(why)
    assert (adapter.vocab_size, adapter.limit, adapter.pad_id) == (vocabulary, limit, padding)
    assert adapter.outputs == outputs
    assert adapter.read["output"].startswith(where)
    assert adapter.head is (where != "last_hidden_state")
    length = limit or 7
    batch = adapter.batch(3, length, seed=1)
    logits = adapter(batch)
    assert logits.shape == ((3, outputs) if kind == "classifier" else (3, length, outputs))
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("name", ["gpt", "bert", "t5", "vit"])
def test_our_models_declare_their_kind_and_their_sizes(name, request):
    model = request.getfixturevalue(f"make_{name}")()
    adapter = adapt(model)
    kinds = {"gpt": "causal_lm", "bert": "masked_lm", "t5": "seq2seq", "vit": "image_classifier"}
    assert (adapter.kind, adapter.read["kind"]) == (kinds[name], "declared by the model")
    assert (adapter.vocab_size, adapter.limit) == ((None, None) if name == "vit" else (23, 12))
    assert adapter.image == ((3, 8, 8) if name == "vit" else None)
    batch = adapter.batch(2, 12, seed=0)
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    assert_close(adapter(batch), model(**inputs))


def test_an_image_model_is_learned_from_its_signature_or_its_modules():
    for model, config, image, classes, why in (
        (transformers_model("ViT"), {}, (2, 8, 8), 7, "by its class's name"),
        (Convolution(), {"image_size": [6, 9]}, (3, 6, 9), 5, "it has no nn.Embedding"),
        (Convolution(1), {"img_size": 28}, (1, 28, 28), 5, "it has no nn.Embedding"),
    ):
        adapter = adapt(model, config=config)
        assert (adapter.kind, adapter.image, adapter.outputs) == ("image_classifier", image, classes)
        assert adapter.read["kind"].startswith(why)
        assert adapter(adapter.batch(3, 0, seed=0)).shape == (3, classes)


def test_models_of_half_precision_are_given_pixels_of_theirs_and_answer_in_float32():
    for model, config in ((Convolution().bfloat16(), {"image_size": 8}), (Recurrent().bfloat16(), NULL)):
        adapter = adapt(model, config=config)
        assert adapter(adapter.batch(2, 4, seed=0)).dtype == torch.float32


def test_the_last_positions_logits_alone_become_every_positions():
    model = NanoGPT().eval()
    adapter = adapt(model)
    batch = adapter.batch(2, 5, seed=0)
    assert_close(adapter(batch), model.body(batch["input_ids"]))
    assert adapter.raw(batch)[1] is not None
    assert_close(adapter({"input_ids": batch["input_ids"]}), adapter(batch))  # the targets are no labels


def test_targets_are_not_passed_where_they_are_not_needed():
    adapter = adapt(Lecture())
    assert adapter.raw(adapter.batch(2, 5, seed=0))[1] is None


def test_the_embedding_of_the_ids_is_known_and_follows_to_another_instance():
    model = Encoder()
    adapter = adapt(model, config={"max_len": T})
    assert adapter.embedding is model.embed
    other = copy.deepcopy(model)
    moved = adapter.on(other)
    assert (moved.model, moved.embedding) == (other, other.embed)
    assert (moved.kind, moved.vocab_size, moved.device) == (adapter.kind, V, torch.device("cpu"))


def test_the_vocabulary_is_asked_for_where_no_embedding_takes_the_ids():
    class OneHot(nn.Module):
        max_len = T

        def __init__(self):
            super().__init__()
            self.out = nn.Linear(V, V)

        def forward(self, ids):
            return self.out(nn.functional.one_hot(ids, V).float())

    with pytest.raises(AdapterError, match=r"The vocabulary size of OneHot is not known.*: vocab_size=N\."):
        adapt(OneHot())
    adapter = adapt(OneHot(), config={"vocab_size": V})
    assert (adapter.vocab_size, adapter.embedding) == (V, None)
    assert adapter.read["vocabulary"] == "vocab_size in the config"


def test_a_stated_vocabulary_goes_before_the_rows_of_the_embedding():
    adapter = adapt(Encoder(), config={"vocab_size": 21, "max_len": T})
    assert (adapter.vocab_size, adapter.usable_ids, adapter.labels) == (21, 21, 21)
    wide = adapt(Encoder(), config={"vocab_size": 40, "max_len": T})
    assert (wide.vocab_size, wide.usable_ids, wide.labels) == (40, V, V)  # the check of the vocabulary says so


@pytest.mark.parametrize(("given", "padding"), [({"pad_id": -1}, V - 1), ({"pad_id": 3}, 3), ({}, None)])
def test_a_negative_padding_id_counts_from_the_end(given, padding):
    assert adapt(Encoder(), config={"max_len": T, **given}).pad_id == padding


@pytest.mark.parametrize("padding", [V, -V - 1])
def test_a_padding_id_outside_the_vocabulary_is_refused(padding):
    message = rf"The padding id is {padding} \(pad_token_id in the config\), outside the vocabulary of {V}"
    with pytest.raises(AdapterError, match=message):
        adapt(Encoder(), config={"max_len": T, "pad_token_id": padding})


class Single(nn.Module):
    """One number a row, as for a regression."""

    seq_len = T

    def __init__(self, squeeze: bool):
        super().__init__()
        self.embed, self.out, self.squeeze = nn.Embedding(V, C), nn.Linear(C, 1), squeeze

    def forward(self, x):
        x = self.out(self.embed(x).mean(1))
        return x.squeeze(1) if self.squeeze else x


class Loss(Encoder):
    def forward(self, x):
        return super().forward(x).square().mean()


class Words(Encoder):
    def forward(self, x):
        return super().forward(x).argmax(-1)


class Odd(Encoder):
    def forward(self, x):
        return SimpleNamespace(prediction=super().forward(x))


def imaginary(self, input_0_tokens, mhsa_0_output, residual_0_output): ...


LENGTH = {"max_len": T}
REFUSED = {
    "values between layers": (lambda: type("Net", (nn.Module,), {"forward": imaginary})(), "", {}, "is incomplete"),
    "a context that nothing states": (Encoder, "", {}, "context length of Encoder is not known.*context_length=N"),
    "an image size that nothing states": (Convolution, "", {}, "^image_size of Convolution cannot be known"),
    "a vocabulary as text": (Encoder, "", {"vocab_size": "29"}, "vocab_size in the config is '29'; expected a whole"),
    "a context as a bool": (Encoder, "", {"max_len": True}, "max_len in the config is True; expected a whole number"),
    "a kind that is none": (Encoder, "decoder", LENGTH, r"kind='decoder' \(declared\): expected one of"),
    "pixels declared as causal_lm": (lambda: transformers_model("ViT"), "causal_lm", LENGTH,
        "no parameter for input_ids, which kind='causal_lm' is given; it takes pixel_values"),
    "x of pixels declared as causal_lm": (Convolution, "causal_lm", LENGTH, "raised RuntimeError on a first batch"),
    "x of pixels declared so without a length": (Convolution, "causal_lm", {}, "raised RuntimeError on a first batch"),
    "text declared as image_classifier": (Encoder, "image_classifier", {"image_size": 8, "channels": 3}, "raised .*"
        r"on a first batch \(pixel_values \(2, 3, 8, 8\)\)"),
    "text declared as seq2seq": (Encoder, "seq2seq", LENGTH, "no parameter for decoder_input_ids"),
    "a translator declared as causal_lm": (Translator, "causal_lm", NULL, "requires tgt, but kind='causal_lm'"),
    "a language model declared as classifier": (Encoder, "classifier", LENGTH,
        r"shape \(2, 3, 29\); kind='classifier' gives \(2, classes\) for this batch"),
    "a classifier declared as masked_lm": (lambda: Encoder(classes=4), "masked_lm", LENGTH,
        r"shape \(2, 4\); kind='masked_lm' gives \(2, 3, V\) for this batch"),
    "images without a head": (lambda: hf.ViTModel(small(hf.ViTConfig, image_size=8, patch_size=4)), "", {},
        r"shape \(2, 5, 16\); kind='image_classifier' gives \(2, classes\)"),
    "a regression": (lambda: Single(False), "", {}, "gives one number a row; kind='classifier' needs one for each"),
    "a regression of one dimension": (lambda: Single(True), "", {}, r"an output of shape \(2,\) for ids of shape"),
    "a loss for logits": (Loss, "", LENGTH, r"an output of shape \(\) for ids"),
    "a declared kind's loss for logits": (Loss, "causal_lm", LENGTH, r"an output of shape \(\); kind='causal_lm'"),
    "ids for logits": (Words, "", LENGTH, "returns a tensor of torch.int64; expected logits"),
    "an unknown output": (Odd, "", LENGTH, "returns a SimpleNamespace; expected a tensor, a tuple with one, or"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_called_as_its_kind_is_refused_with_the_reason(name):
    build, kind, config, message = REFUSED[name]
    with pytest.raises(AdapterError, match=message):
        adapt(build(), kind=kind, config=config)


def test_a_kind_that_is_declared_goes_before_what_is_inferred():
    adapter = adapt(Encoder(), kind="causal_lm", config=LENGTH)
    assert (adapter.kind, adapter.read["kind"]) == ("causal_lm", "declared")
    states = adapt(transformers_model("BERT of hidden states"), kind="classifier")
    assert (states.kind, states.head, states.per_token) == ("classifier", False, True)


def test_facts_say_the_kind_and_each_number_and_where_it_was_read():
    facts = adapt(Recurrent(), config=NULL | {"n_vocab": V}).facts()
    numbers = V * C + 2 * (4 * C * C + 4 * C) + V * C + V  # embedding, LSTM (input and state), head
    assert facts == {
        "kind": "causal_lm (inferred: no position sees a later token)",
        "called as": "Recurrent.forward(input, hidden=None)",
        "logits are": "its output[0]",
        "vocabulary": f"{V} (n_vocab in the config)",
        "context": "states none (context_length is null in the config)",
        "padding id": "0 (the embedding's padding_idx)",
        "outputs": str(V),
        "parameters": f"{numbers:,}",
        "device": "cpu",
    }
    seen = adapt(Convolution(), config={"image_size": [6, 9]}).facts()
    assert seen["image"] == "3 x 6 x 9 (image_size in the config, channels of its first nn.Conv2d)"
    assert not {"vocabulary", "context", "padding id"} & set(seen)


def test_the_table_of_facts_escapes_what_the_model_says():
    model = type("Net", (Recurrent,), {"forward": lambda self, x, tag="<b>": self.out(self.embed(x))})()
    page = adapt(model, config=NULL)._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


KINDS = {
    "causal_lm": lambda: adapt(Recurrent(), config=NULL),
    "masked_lm": lambda: adapt(transformers_model("RoBERTa")),
    "seq2seq": lambda: adapt(transformers_model("BART")),
    "classifier": lambda: adapt(transformers_model("BERT classifier")),
    "image_classifier": lambda: adapt(transformers_model("ViT")),
}
KEYS = {
    "causal_lm": {"input_ids"},
    "masked_lm": {"input_ids", "attention_mask"},
    "seq2seq": {"input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask"},
    "classifier": {"input_ids", "attention_mask"},
    "image_classifier": {"pixel_values"},
}


@pytest.fixture(params=KINDS)
def adapter(request) -> Adapter:
    return KINDS[request.param]()


def test_a_batch_has_the_keys_shapes_and_types_of_its_kind(adapter):
    batch = adapter.batch(3, 5, seed=0)
    assert set(batch) == KEYS[adapter.kind] | {"labels"}
    for key, value in batch.items():
        if key == "pixel_values":
            assert (value.shape, value.dtype) == ((3, 2, 8, 8), torch.float32)
        elif key == "labels" and adapter.kind.endswith("classifier"):
            assert (value.shape, value.dtype) == ((3,), torch.int64)
        else:
            assert (value.shape, value.dtype) == ((3, 5), torch.int64)
        assert value.device == adapter.device
    assert all((batch[key] == 1).all() for key in batch if key.endswith("mask"))


def test_batches_of_one_seed_are_equal_and_of_another_are_not(adapter):
    one, same, other = (adapter.batch(4, 6, seed=seed) for seed in (3, 3, 4))
    for key, value in one.items():
        assert torch.equal(value, same[key])
        assert key.endswith("mask") or not torch.equal(value, other[key])


def test_a_batch_draws_from_no_generator_of_the_caller(adapter):
    before = torch.get_rng_state()
    adapter.batch(4, 6, seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_ids_are_every_one_but_the_padding_and_labels_every_class(adapter):
    batch = adapter.batch(500, 8, seed=0)
    for key in ("input_ids", "decoder_input_ids"):
        if key in batch:
            assert set(batch[key].flatten().tolist()) == set(range(V)) - {adapter.pad_id}
    classes = {"classifier": 3, "image_classifier": 7}.get(adapter.kind, V)
    assert set(batch["labels"].flatten().tolist()) == set(range(classes))


def test_labels_are_independent_of_the_inputs():
    adapter = KINDS["masked_lm"]()
    batch = adapter.batch(500, 10, seed=0)
    ids, labels = batch["input_ids"].flatten().double(), batch["labels"].flatten().double()
    for shift in (0, 1):  # nor are they the next token
        r = numpy.corrcoef(ids[: len(ids) - shift], labels[: len(ids) - shift].roll(-shift))[0, 1]
        assert abs(r) < 4 / math.sqrt(5000)  # the deviation of r over n independent pairs is 1 / sqrt(n)
    agree = (batch["input_ids"] == batch["labels"]).double().mean().item()
    assert abs(agree - 1 / V) < 4 * math.sqrt(1 / V / 5000)


def test_no_id_is_drawn_that_the_embedding_lacks():
    adapter = adapt(Encoder(), config={"vocab_size": 40, "max_len": T, "pad_id": 5})
    ids = adapter.batch(500, 8, seed=0)["input_ids"]
    assert set(ids.flatten().tolist()) == set(range(V)) - {5}


def test_the_loss_is_the_mean_over_the_labels_that_are_asked_for(adapter):
    adapter.model.eval()
    batch = adapter.batch(4, 5, seed=0)
    if adapter.language:
        batch["labels"][:, ::2] = -100
    else:
        batch["labels"][0] = -100
    logits, labels = adapter(batch).double().reshape(-1, adapter.outputs), batch["labels"].flatten().tolist()
    asked = [(row, label) for row, label in zip(logits.tolist(), labels) if label != -100]
    # -log of the softmax, written out
    terms = [math.log(math.fsum(math.exp(value) for value in row)) - row[label] for row, label in asked]
    assert len(terms) == (8 if adapter.language else 3)
    assert adapter.loss(batch).item() == pytest.approx(math.fsum(terms) / len(terms), rel=1e-5)


def test_the_loss_reaches_the_weights(adapter):
    adapter.loss(adapter.batch(4, 5, seed=0)).backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in adapter.model.parameters())


def state_of(model: nn.Module) -> dict[str, object]:
    rng, digest = rng_state(), hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(name.encode() + tensor.detach().numpy().tobytes())
    return {
        "weights and buffers": digest.hexdigest(),
        "gradients": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "python": rng["python"],
        "numpy": [rng["numpy"][1].tolist(), *rng["numpy"][2:]],
        "torch": rng["torch"].tolist(),
    }


class Counting(Recurrent):
    """Disturbs what it can: its buffers and the generators."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        nn.init.zeros_(self.out.weight)

    def forward(self, ids):
        self.calls += random.random() + numpy.random.rand() + torch.rand(()).item()
        return super().forward(ids)[0]


@pytest.mark.parametrize(
    ("build", "config"),
    [
        (Counting, NULL),
        (NanoGPT, {}),
        (Convolution, {"image_size": 8}),
        (lambda: transformers_model("RoBERTa"), {}),
        (lambda: Single(False), {}),  # is refused
        (Convolution, {}),  # so is this
    ],
)
def test_adapting_leaves_all_of_the_model_and_the_generators_as_found(build, config):
    model = build()
    for index, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 0.5) if index % 2 else None
        parameter.requires_grad_(index != 1)
    for index, module in enumerate(model.modules()):
        module.training = index % 3 > 0
    random.random(), numpy.random.rand(3), torch.rand(3)
    before = state_of(model)
    try:
        adapt(model, config=config)
    except AdapterError:
        assert isinstance(model, Single) or not config
    after = state_of(model)
    assert [key for key in before if before[key] != after[key]] == []


def test_what_is_known_from_loading_is_kept():
    adapter = adapt(Recurrent(), config=NULL, build=Recurrent, pretrained=True)
    assert (adapter.build, adapter.pretrained, adapter.device) == (Recurrent, True, torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_model_and_its_batches_lie_there():
    adapter = adapt(Recurrent(), config=NULL, device="cuda")
    batch = adapter.batch(2, 3, seed=0)
    assert {value.device.type for value in batch.values()} == {"cuda"}
    assert adapter(batch).device.type == "cuda"
    assert torch.equal(batch["input_ids"].cpu(), adapt(Recurrent(), config=NULL).batch(2, 3, seed=0)["input_ids"])
