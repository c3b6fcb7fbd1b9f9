"""Predictions over ragged splits, and their scores against hand computations, scikit-learn and sacrebleu's README."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from utils.data.masking import shift_right
from utils.models.bert import ClassifierConfig, TextClassifier
from utils.models.t5 import T5, T5Config
from utils.training.classes import classification_metrics, predict_classes
from utils.training.evaluate import evaluate
from utils.training.generation import generate_seq2seq, generation_metrics, predict_texts
from utils.training.objectives import classify

V, CLASSES, START, END, PAD = 12, 3, 1, 2, 0
SHAPE = {"vocab_size": V, "context_length": 10, "num_layers": 2, "num_heads": 2, "width": 16}
LENGTHS = [5, 1, 8, 3, 2, 7, 4, 6, 1, 8, 3]


def sources():
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(3, V, (length,), generator=draw) for length in LENGTHS]


def padded(rows, fill):
    return nn.utils.rnn.pad_sequence(rows, True, fill)


class Rows:
    """Texts and a label each: a class, or the text backwards and the end token."""

    def __init__(self, *, classes):
        self.sources, self.classes = sources(), classes
        self.labels = [ids[0] % CLASSES if classes else torch.tensor([*reversed(ids), END]) for ids in self.sources]
        if classes:
            self.labels[4] = torch.tensor(-100)

    def num_batches(self, batch_size, *, seed=None, epoch=0):
        return -(-len(self.sources) // batch_size)

    def batches(self, batch_size, *, seed=None, epoch=0, start=0):
        for first in range(start * batch_size, len(self.sources), batch_size):
            rows = slice(first, first + batch_size)
            ids = padded(self.sources[rows], PAD)
            batch = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
            labels = torch.stack(self.labels[rows]) if self.classes else padded(self.labels[rows], -100)
            batch["labels"] = labels
            if not self.classes:
                batch["decoder_input_ids"] = torch.from_numpy(shift_right(labels.numpy(), START, PAD))
            yield batch


class Backwards(nn.Module):
    """Says the source backwards and then the end token, for ever."""

    def forward(self, input_ids, attention_mask, decoder_input_ids):
        place = attention_mask.sum(1, keepdim=True) - 1 - torch.arange(decoder_input_ids.shape[1])  # (B, Td)
        token = torch.where(place >= 0, input_ids.gather(1, place.clamp(min=0)), END)
        return nn.functional.one_hot(token, V).float()


def stirred(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn_like(parameter)
    return model


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return stirred(TextClassifier(ClassifierConfig(**SHAPE, num_classes=CLASSES, dropout=0.5)))


@pytest.fixture
def t5():
    torch.manual_seed(2)
    return stirred(T5(T5Config(**SHAPE, tie_embeddings=False)))


# Classes


@pytest.mark.parametrize("rows", [1, 3, 4, 11])
def test_predictions_are_those_of_each_row_by_itself(rows, classifier, settings):
    split = Rows(classes=True)
    predictions, labels = predict_classes(classifier, split, settings(eval_batch_size=rows))
    assert classifier.training
    with torch.no_grad():
        alone = [int(classifier.eval()(ids[None])[0].argmax()) for ids in split.sources]
    assert predictions.tolist() == alone[:4] + alone[5:]  # the fifth row is labelled -100
    assert labels.tolist() == [int(ids[0]) % CLASSES for number, ids in enumerate(split.sources) if number != 4]
    assert len(set(alone)) > 1


def test_accuracy_equals_that_of_evaluation(classifier, settings):
    split, config = Rows(classes=True), settings(eval_batch_size=4)
    found = classification_metrics(*predict_classes(classifier, split, config))
    assert 0 < found.accuracy < 1
    assert found.accuracy == pytest.approx(evaluate(classifier, classify, split, config)["accuracy"])


def test_whole_split_is_predicted_whatever_an_evaluation_takes(classifier, settings):
    predictions, _ = predict_classes(classifier, Rows(classes=True), settings(eval_batches=1))
    assert len(predictions) == len(LENGTHS) - 1


def test_nan_is_no_prediction(classifier, settings):
    nn.init.constant_(classifier.head.bias, float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        predict_classes(classifier, Rows(classes=True), settings())


def test_table_and_macro_f1_equal_a_hand_computation():
    # Class 0: 2 of its 3 found, 1 of 3 said wrongly: P = R = F1 = 2/3. Class 1: 1 of 2 found, 1 said in error:
    # P = R = F1 = 1/2. Class 2: its 1 found and nothing else said: 1. Class 3 is not there and never said.
    labels, predictions = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 2]
    found = classification_metrics(np.array(predictions), np.array(labels), ["a", "b", "c", "d"])
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found.table["f1"].tolist() == pytest.approx([2 / 3, 1 / 2, 1, float("nan")], nan_ok=True)
    assert found.table["examples"].tolist() == [3, 2, 1, 0]
    assert found.table["predicted"].tolist() == [3, 2, 1, 0]
    assert found.confusion.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert list(found.table.index) == ["a", "b", "c", "d"]
    assert found.metrics() == {"accuracy": found.accuracy, "macro_f1": found.macro_f1}
    assert "<td>0.667</td>" in found._repr_html_()


def test_class_that_is_never_predicted_counts_as_zero():
    # Everything is said to be 0: F1 of 0 is 2 * 3 / (2 * 3 + 1) = 6/7, that of 1 is 0.
    assert classification_metrics(np.zeros(4), np.array([0, 0, 0, 1])).macro_f1 == pytest.approx(3 / 7)


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_scikit_learn_with_and_without_names(seed):
    draw = np.random.default_rng(seed)
    labels, predictions = draw.integers(4, size=(2, 50))
    for names in (None, list("abcd"), list("abcdef")):
        found = classification_metrics(predictions, labels, names)
        assert found.accuracy == pytest.approx(accuracy_score(labels, predictions))
        assert found.macro_f1 == pytest.approx(f1_score(labels, predictions, average="macro"))


@pytest.mark.parametrize(
    ("predictions", "labels", "names", "message"),
    [
        ([], [], None, "one example at least"),
        ([1, 2], [1], None, r"\(2,\) predictions for \(1,\) labels"),
        ([0, 5], [0, 1], ["a", "b"], r"Classes \[5\] occur, and there are names for 0 to 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(predictions, labels, names, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(np.array(predictions), np.array(labels), names)


# Texts


def greedy(model, ids, number):
    """Token by token for one source, unpadded and unmasked."""
    text = [START]
    with torch.no_grad():
        for _ in range(number):
            text.append(int(model(ids[None], torch.tensor([text]))[0, -1].argmax()))
    return text[1:]


@pytest.mark.parametrize("rows", [1, 4, 11])
def test_batch_says_what_each_row_says_alone_up_to_its_end(rows, t5):
    alone = [greedy(t5.eval(), ids, 9) for ids in sources()]
    starts = [{token: text.index(token) for token in text} for text in alone]
    # A token that some rows say early, some late, some not at all, is taken for the end.
    end = max(range(V), key=lambda token: len({first.get(token) for first in starts}))
    stops = {first.get(end) for first in starts}
    assert None in stops
    assert len(stops) > 3
    t5.train()
    made = [text for batch in Rows(classes=False).batches(rows) for text in generate_seq2seq(t5, batch, START, end, 9)]
    assert t5.training
    assert made == [text[: first.get(end)] for text, first in zip(alone, starts)]


def test_no_more_than_the_asked_tokens_are_made_and_none_after_the_last_row_is_done():
    calls = []

    class Counted(Backwards):
        def forward(self, input_ids, attention_mask, decoder_input_ids):
            calls.append(len(input_ids))
            return super().forward(input_ids, attention_mask, decoder_input_ids)

    ids = padded([torch.tensor([5]), torch.tensor([6, 7, 8]), torch.tensor([9, 10])], PAD)
    batch = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
    assert generate_seq2seq(Counted(), batch, START, END, 20) == [[5], [8, 7, 6], [10, 9]]
    assert calls == [3, 3, 2, 1]  # each says one token a call, and the end in its last
    assert generate_seq2seq(Counted(), batch, START, END, 2) == [[5], [8, 7], [10, 9]]
    assert generate_seq2seq(Counted(), batch, START, END, 0) == [[], [], []]


@pytest.mark.parametrize("rows", [1, 4, 11])
def test_model_that_is_always_right_has_bleu_and_chrf_100(rows, settings):
    made, right = predict_texts(
        Backwards(), Rows(classes=False), settings(eval_batch_size=rows), lambda ids: " ".join(map(str, ids)),
        start_id=START, eos_id=END, max_new_tokens=9,
    )  # fmt: skip
    assert made == right == [" ".join(map(str, reversed(ids.tolist()))) for ids in sources()]
    found = generation_metrics(made, right)
    assert found.metrics() == pytest.approx({"bleu": 100, "chrf": 100, "exact_match": 1})
    assert found.texts == len(LENGTHS)


def test_batches_takes_the_first_ones(settings):
    made, right = predict_texts(
        Backwards(), Rows(classes=False), settings(eval_batch_size=4), str,
        start_id=START, eos_id=END, max_new_tokens=9, batches=2,
    )  # fmt: skip
    assert made == right
    assert len(made) == 8


def test_bleu_and_chrf_are_those_that_sacrebleu_publishes():
    # https://github.com/mjpost/sacrebleu, README, "Using SacreBLEU from Python".
    texts = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    references = [
        ["The dog bit the man.", "The dog had bit the man."],
        ["It was not unexpected.", "No one was surprised."],
        ["The man bit him first.", "The man had bitten the dog."],
    ]
    found = generation_metrics(texts, references)
    assert (round(found.bleu, 2), round(found.chrf, 2)) == (48.53, 59.73)
    assert found.exact_match == pytest.approx(1 / 3)
    assert found.signatures["bleu"].startswith("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert found.signatures["chrf"].startswith("nrefs:2|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert found.signatures["bleu"] in found._repr_html_()


def test_bleu_equals_a_hand_computation():
    # Found are 5 of 6 words ("the" once), 3 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples; both have six words.
    found = generation_metrics(["the cat sat on the mat"], ["the cat sat on a mat"])
    assert found.bleu == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    # Half the length, all right: the brevity penalty exp(1 - 8 / 4).
    assert generation_metrics(["a b c d"], ["a b c d e f g h"]).bleu == pytest.approx(100 * np.exp(-1))


def test_bleu_is_of_the_corpus_and_not_a_mean_of_texts():
    # 4-grams: 1 of 1 and 0 of 5; triples 2 of 8, pairs 3 of 10, words 4 of 12.
    found = generation_metrics(["a b c d", "e f g h i j k l"], ["a b c d", "m n o p q r s t"])
    assert found.bleu == pytest.approx(100 * (4 / 12 * 3 / 10 * 2 / 8 * 1 / 6) ** 0.25)


def test_texts_may_have_different_numbers_of_references():
    found = generation_metrics(["a b c d", "e f g h"], ["a b c d", ["x", "e f g h"]])
    assert found.bleu == pytest.approx(100)
    assert found.signatures["bleu"].startswith("nrefs:var|")


def test_corpus_too_short_for_bleu_is_said(caplog):
    with caplog.at_level(logging.WARNING, "utils.training.generation"):
        found = generation_metrics(["a b c"], ["a b c"])
    assert (found.bleu, found.exact_match) == (0, 1)
    assert found.chrf == pytest.approx(100)
    assert "No generated text has 4 tokens, so BLEU is 0" in caplog.text


def test_empty_texts_score_zero():
    found = generation_metrics(["", ""], ["a b c d", "e"])
    assert found.metrics() == {"bleu": 0, "chrf": 0, "exact_match": 0}


@pytest.mark.parametrize(
    ("texts", "references", "message"),
    [
        (["a", "b"], ["a"], "2 hypotheses for 1 references"),
        ([], [], "one at least"),
        (["a", "b"], ["a", []], "Text 1 has no reference"),
    ],
)
def test_texts_without_references_are_refused(texts, references, message):
    with pytest.raises(ValueError, match=message):
        generation_metrics(texts, references)


# Processes

CHILD = """
import importlib.util, json, os, sys
from pathlib import Path
import torch
from utils.core.device import leave_processes
from utils.training.config import TrainConfig
from utils.training.classes import predict_classes
from utils.training.generation import predict_texts

spec = importlib.util.spec_from_file_location("judging_tests", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
torch.manual_seed(0)
config = TrainConfig(max_steps=1, warmup_steps=0, device="cpu", precision="fp32", eval_batch_size=4)
model = tests.stirred(tests.TextClassifier(tests.ClassifierConfig(**tests.SHAPE, num_classes=tests.CLASSES)))
predictions, labels = predict_classes(model, tests.Rows(classes=True), config)
texts, _ = predict_texts(
    tests.Backwards(), tests.Rows(classes=False), config, str,
    start_id=tests.START, eos_id=tests.END, max_new_tokens=9,
)
found = json.dumps([predictions.tolist(), labels.tolist(), texts])
Path(__file__).with_name(os.environ["RANK"] + ".json").write_text(found)
leave_processes()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_each_get_what_one_gets_in_the_order_of_the_split(classifier, settings, tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, str(tmp_path / "child.py"), __file__], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    predictions, labels = predict_classes(classifier, Rows(classes=True), settings(eval_batch_size=4))
    texts = [str(list(reversed(ids.tolist()))) for ids in sources()]
    assert found == [[predictions.tolist(), labels.tolist(), texts]] * 2  # three batches: two and one
