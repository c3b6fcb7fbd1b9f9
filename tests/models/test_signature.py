"""Matching forward's parameters to a batch's keys, the calls that follow, the refusals, and the tensor of an output."""

from __future__ import annotations

import random
from collections import namedtuple
from dataclasses import dataclass

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

from utils.core.repro import rng_state
from utils.models.signature import AdapterError, inspect_forward, logits_of, probe, tensors_of

BATCH = {
    "input_ids": torch.tensor([[1, 2]]),
    "attention_mask": torch.ones(1, 2),
    "decoder_input_ids": torch.tensor([[3, 4]]),
    "decoder_attention_mask": torch.zeros(1, 2),
    "pixel_values": torch.rand(1, 3, 4, 4),
}
IDS, IMAGE, BOTH = ("input_ids",), ("pixel_values",), ("input_ids", "decoder_input_ids")
MASKED = ("input_ids", "attention_mask")


def model_of(forward, name: str = "Stranger") -> nn.Module:
    return type(name, (nn.Module,), {"forward": forward})()


def generated(self, input_0_tokens, mhsa_0_output, residual_0_output):
    """As a model builder writes it for a graph whose layers are not connected."""


# forward gives back what it was given, under OUR keys -> the kind, and the keys that it must be given
CALLS = {
    "(input_ids)": (lambda self, input_ids: {"input_ids": input_ids}, "causal_lm", IDS),
    "(x)": (lambda self, x: {"input_ids": x}, "causal_lm", IDS),
    "(idx, targets=None)": (lambda self, idx, targets=None: {"input_ids": idx, "t": targets}, "causal_lm", IDS),
    "(sentence)": (lambda self, sentence: {"input_ids": sentence}, "classifier", IDS),
    "(x, mask=None)": (lambda self, x, mask=None: {"input_ids": x, "mask": mask}, "masked_lm", IDS),
    "(tokens, start_pos=0)": (lambda self, tokens, start_pos=0: {"input_ids": tokens}, "causal_lm", IDS),
    "(input, hidden=None)": (lambda self, input, hidden=None: {"input_ids": input, "h": hidden}, "causal_lm", IDS),
    "(input_ids, target_ids=None)": (
        lambda self, input_ids, target_ids=None: {"input_ids": input_ids, "t": target_ids}, "", IDS),
    "(input_ids, token_type_ids=None)": (
        lambda self, input_ids, token_type_ids=None: {"input_ids": input_ids, "t": token_type_ids}, "masked_lm", IDS),
    "(input_ids, attention_mask=None)": (
        lambda self, input_ids, attention_mask=None: {"input_ids": input_ids, "attention_mask": attention_mask},
        "masked_lm", MASKED),
    "(input_ids, attention_mask)": (
        lambda self, input_ids, attention_mask: {"input_ids": input_ids, "attention_mask": attention_mask}, "", MASKED),
    "(attention_mask, input_ids)": (
        lambda self, attention_mask, input_ids: {"input_ids": input_ids, "attention_mask": attention_mask}, "", MASKED),
    "(input_ids=None, pixel_values=None)": (
        lambda self, input_ids=None, pixel_values=None: {"input_ids": input_ids, "pixel_values": pixel_values},
        "causal_lm", IDS),
    "(input_ids, decoder_input_ids)": (
        lambda self, input_ids, decoder_input_ids: {"input_ids": input_ids, "decoder_input_ids": decoder_input_ids},
        "seq2seq", BOTH),
    "(src, tgt)": (lambda self, src, tgt: {"input_ids": src, "decoder_input_ids": tgt}, "seq2seq", BOTH),
    "(trg, src)": (lambda self, trg, src: {"input_ids": src, "decoder_input_ids": trg}, "seq2seq", BOTH),
    "(src, target_ids)": (lambda self, src, target_ids: {"input_ids": src, "decoder_input_ids": target_ids}, "seq2seq",
        BOTH),
    "a classifier's own decoder": (
        lambda self, input_ids, decoder_input_ids=None: {"input_ids": input_ids, "decoder_input_ids":
            decoder_input_ids}, "classifier", IDS),
    "(pixel_values)": (lambda self, pixel_values: {"pixel_values": pixel_values}, "image_classifier", IMAGE),
    "(img)": (lambda self, img: {"pixel_values": img}, "image_classifier", IMAGE),
    "(img, x=None)": (lambda self, img, x=None: {"pixel_values": img, "x": x}, "image_classifier", IMAGE),
    "(x) of images": (lambda self, x: {"pixel_values": x}, "image_classifier", IMAGE),
    "(x, /) of images": (lambda self, x, /: {"pixel_values": x}, "image_classifier", IMAGE),
    "(*args) of images": (lambda self, *args: {"pixel_values": args[0]}, "image_classifier", IMAGE),
    "(**kwargs)": (lambda self, **kwargs: kwargs, "causal_lm", MASKED),
    "(**kwargs) of images": (lambda self, **kwargs: kwargs, "image_classifier", IMAGE),
    "(**kwargs) of pairs": (lambda self, **kwargs: kwargs, "seq2seq", (*BOTH, *MASKED, "decoder_attention_mask")),
    "(attention_mask=None, **kwargs)": (
        lambda self, attention_mask=None, **kwargs: {**kwargs, "attention_mask": attention_mask}, "", MASKED),
    "(x, **kwargs)": (lambda self, x, **kwargs: {"input_ids": x, **kwargs}, "causal_lm", IDS),
    "(*args)": (lambda self, *args: dict(zip(("input_ids", "more"), args)), "causal_lm", IDS),
    "(*args, **kwargs)": (lambda self, *args, **kwargs: {"input_ids": args[0], **kwargs}, "causal_lm", IDS),
    "(*args, attention_mask=None)": (
        lambda self, *args, attention_mask=None: {"input_ids": args[0], "attention_mask": attention_mask}, "", MASKED),
    "(x, /)": (lambda self, x, /: {"input_ids": x}, "causal_lm", IDS),
    "(x=None, /)": (lambda self, x=None, /: {"input_ids": x}, "causal_lm", IDS),
    "(input_ids, attention_mask=None, /)": (
        lambda self, input_ids, attention_mask=None, /: {"input_ids": input_ids, "attention_mask": attention_mask},
        "", MASKED),
    "(tgt, src, /)": (lambda self, tgt, src, /: {"input_ids": src, "decoder_input_ids": tgt}, "seq2seq", BOTH),
    "(x, /, attention_mask)": (
        lambda self, x, /, attention_mask: {"input_ids": x, "attention_mask": attention_mask}, "", MASKED),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_forward_is_given_each_key_of_its_kind_under_its_own_name_for_it(name):
    forward, kind, keys = CALLS[name]
    model = model_of(forward)
    signature = inspect_forward(model).for_kind(kind)
    got = {key: value for key, value in signature.call(model, BATCH).items() if value is not None}
    assert set(got) == set(keys) == set(signature.arguments)
    assert all(value is BATCH[key] for key, value in got.items())


def test_a_key_that_the_batch_lacks_is_not_passed():
    for forward in (CALLS["(input_ids, attention_mask=None)"][0], CALLS["(input_ids, attention_mask=None, /)"][0]):
        model = model_of(forward)
        got = inspect_forward(model).call(model, {"input_ids": BATCH["input_ids"]})
        assert got == {"input_ids": BATCH["input_ids"], "attention_mask": None}


def test_a_mask_is_needed_only_where_it_has_no_default():
    for name, needed in (("(input_ids, attention_mask)", True), ("(input_ids, attention_mask=None)", False)):
        signature = inspect_forward(model_of(CALLS[name][0]))
        assert signature.takes("attention_mask")
        assert signature.needs("attention_mask") is needed
        assert signature.needs("input_ids")
        assert not signature.needs("pixel_values")


@pytest.mark.parametrize("name", ["targets", "labels", "target", "target_ids", "y"])
def test_an_optional_parameter_for_labels_is_known_as_such(name):
    scope = {}
    exec(f"def forward(self, idx, {name}=None): ...", scope)
    signature = inspect_forward(model_of(scope["forward"]))
    assert signature.targets == name
    assert not signature.takes("decoder_input_ids")


def test_the_signature_is_shown_without_annotations_and_not_at_any_length():
    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor: ...

    scope = {}
    exec(f"def many(self, x, {', '.join(f'option_{i}=None' for i in range(100))}): ...", scope)
    assert inspect_forward(model_of(forward, "Net")).shown == "Net.forward(x, scale=2.0)"
    assert len(inspect_forward(model_of(scope["many"])).shown) == 303  # 300, and three dots


def test_values_between_the_layers_are_refused_with_the_cause_and_the_cure():
    with pytest.raises(AdapterError) as caught:
        inspect_forward(model_of(generated, "CustomTransformer"))
    message = str(caught.value)
    assert message.startswith(
        "CustomTransformer.forward(input_0_tokens, mhsa_0_output, residual_0_output) wants mhsa_0_output, "
        "residual_0_output: values that a model computes inside itself"
    )
    assert "The export is incomplete" in message
    assert "Connect the layers in the builder and export again" in message


def test_a_generated_forward_that_takes_the_tokens_alone_is_called():
    model = model_of(lambda self, input_0_tokens, mhsa_0_output=None: input_0_tokens)
    assert inspect_forward(model).call(model, BATCH) is BATCH["input_ids"]


@pytest.mark.parametrize(
    ("forward", "wanted"),
    [
        (lambda self, x, mask: x, "requires mask, which"),
        (lambda self, input, hidden: input, "requires hidden, which"),
        (lambda self, tgt, memory, tgt_mask: tgt, "requires memory, tgt_mask, which"),
        (lambda self, x, encoder_output: x, "requires encoder_output, which"),  # a decoder, and no incomplete export
        (lambda self, input_ids, position_ids: input_ids, "requires position_ids, which"),
        (lambda self, text, offsets, /: text, "requires offsets, which"),
        (lambda self, knob=1: knob, "has no parameter that we know for an input"),
        (lambda self: None, "has no parameter that we know for an input"),
    ],
)
def test_what_no_batch_holds_is_refused_with_the_calls_that_are_accepted(forward, wanted):
    with pytest.raises(AdapterError, match=wanted) as caught:
        inspect_forward(model_of(forward))
    assert "Expected one of: (input_ids), (x), (input_ids, attention_mask=None)" in str(caught.value)


def test_a_forward_that_python_cannot_read_is_refused():
    model = nn.Linear(1, 1)
    model.forward = None
    with pytest.raises(AdapterError, match="The parameters of Linear.forward cannot be read"):
        inspect_forward(model)


@pytest.mark.parametrize(
    ("forward", "kind", "message"),
    [
        (lambda self, pixel_values: 0, "causal_lm",
         r"no parameter for input_ids, which kind='causal_lm' is given; it takes pixel_values\. Declare"),
        (lambda self, input_ids: 0, "seq2seq", "no parameter for decoder_input_ids, which kind='seq2seq' is given"),
        (lambda self, decoder_input_ids=None: 0, "seq2seq", "no parameter for input_ids, which kind='seq2seq'"),
        (lambda self, src, tgt: 0, "causal_lm", "requires tgt, but kind='causal_lm' is given input_ids, attention_m"),
        (lambda self, src, tgt: 0, "image_classifier", "requires tgt, but kind='image_classifier' is given pixel_val"),
        (lambda self, attention_mask: 0, "", "no parameter for input_ids, which a model of text is given"),
        (lambda self, input_ids, pixel_values: 0, "", "requires pixel_values, but a model of text is given"),
        (lambda self, input_ids, pixel_values: 0, "image_classifier", "requires input_ids, but kind='image_classif"),
    ],
)  # fmt: skip
def test_a_kind_that_forward_does_not_fit_is_refused(forward, kind, message):
    with pytest.raises(AdapterError, match=message):
        inspect_forward(model_of(forward)).for_kind(kind)


LOGITS = torch.rand(2, 3, 5)


@dataclass
class Answer:
    loss: Tensor
    logits: Tensor


Pair = namedtuple("Pair", ["state", "logits"])


@pytest.mark.parametrize(
    ("output", "where"),
    [
        (LOGITS, "output"),
        ((LOGITS, torch.tensor(0.1)), "output[0]"),
        ([None, torch.tensor(0.1), LOGITS], "output[2]"),
        ((LOGITS, (torch.rand(2, 2), torch.rand(2, 2))), "output[0]"),
        ((torch.ones(2, 3, dtype=torch.long), LOGITS), "output[1]"),
        ({"loss": torch.rand(2, 2), "logits": LOGITS}, "logits"),
        ({"last_hidden_state": LOGITS, "pooler_output": torch.rand(2, 4)}, "last_hidden_state"),
        ({"last_hidden_state": torch.rand(2, 3, 4), "logits": LOGITS}, "logits"),
        ({"loss": torch.tensor(1.0), "scores": LOGITS}, "output['scores']"),
        (Answer(torch.tensor(1.0), LOGITS), "logits"),
        (Pair(torch.rand(2, 2), LOGITS), "logits"),
        (CausalLMOutput(loss=torch.tensor(1.0), logits=LOGITS), "logits"),
        (BaseModelOutput(last_hidden_state=LOGITS), "last_hidden_state"),
    ],
)
def test_the_logits_are_found_and_it_is_said_where(output, where):
    found, told = logits_of(output)
    assert found is LOGITS
    assert told == where


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, "returns a NoneType; expected a tensor, a tuple with one, or `logits`"),
        ("text", "returns a str"),
        ((torch.tensor(1.0), None), "returns a tuple"),
        ([], "returns a list"),
        ({"loss": torch.tensor(1.0), "steps": 3}, "returns a dict with loss, steps; expected"),
        ({}, "returns a dict with nothing"),
        (torch.ones(2, 3, dtype=torch.long), "returns a tensor of torch.int64; expected logits"),
    ],
)
def test_an_output_without_logits_is_refused_with_what_came(output, message):
    with pytest.raises(AdapterError, match=message):
        logits_of(output)


def test_every_number_of_an_output_is_found_however_deep():
    a, b, c, d = (torch.rand(size) for size in (1, 2, 3, 4))
    nested = {"a": a, "ids": torch.tensor([1]), "more": (b, [Answer(c, d)], None, "text")}
    assert [tensor.numel() for tensor in tensors_of(nested)] == [1, 2, 3, 4]
    assert tensors_of(CausalLMOutput(logits=a, hidden_states=(b, c))) == [a, b, c]
    assert tensors_of(torch.tensor([1])) == tensors_of(None) == []


class Busy(nn.Module):
    """Disturbs everything that a call can: generators, buffers; and looks up other things than the ids."""

    def __init__(self):
        super().__init__()
        self.places, self.tokens, self.second = nn.Embedding(8, 4), nn.Embedding(7, 4), nn.Embedding(7, 4)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("seen", None)

    def forward(self, ids):
        self.calls += 1
        random.random(), numpy.random.rand(), torch.rand(1)
        x = self.places(torch.arange(ids.shape[1]).expand_as(ids)) + self.tokens(input=ids) + self.second(ids)
        return self.dropout(x)


def test_probing_names_the_embeddings_of_the_ids_in_the_order_of_their_calls():
    model = Busy()
    output, found = probe(model, inspect_forward(model), {"input_ids": torch.tensor([[3, 1]])})
    assert found == [model.tokens, model.second]
    assert not output.requires_grad
    rows = [model.places.weight[:2], model.tokens.weight[[3, 1]], model.second.weight[[3, 1]]]
    assert_close(output, sum(rows)[None])  # in eval mode: nothing is dropped


def test_probing_leaves_modes_buffers_generators_and_hooks_as_found():
    model = Busy()
    model.dropout.eval()
    model.calls.fill_(5)
    torch.rand(3)
    before = rng_state()
    for ids in (torch.tensor([[3, 1]]), torch.tensor([[9, 9]])):  # the second raises on its way
        try:
            probe(model, inspect_forward(model), {"input_ids": ids})
        except AdapterError:
            assert ids.max() == 9
        after = rng_state()
        assert before["python"] == after["python"]
        assert torch.equal(before["torch"], after["torch"])
        assert before["numpy"][2:] == after["numpy"][2:]
        assert torch.equal(before["numpy"][1], after["numpy"][1])
        assert model.training
        assert model.tokens.training
        assert not model.dropout.training
        assert model.calls == 5
        assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_the_model_raised_is_said_in_one_line():
    model = model_of(lambda self, x: 1 / 0, "Broken")
    told = r"Broken.forward\(x\) raised ZeroDivisionError on a first batch \(input_ids \(1, 2\)\): division by zero\."
    with pytest.raises(AdapterError, match=rf"^{told} Check the kind, and the sizes in the config\.$"):
        probe(model, inspect_forward(model), BATCH)

    def forward(self, x):
        raise RuntimeError("one\n\ntwo " + "z" * 1000)

    with pytest.raises(AdapterError, match=r": one two z{292}\. Check") as caught:
        probe(model_of(forward), inspect_forward(model_of(forward)), BATCH)
    assert isinstance(caught.value.__cause__, RuntimeError)
