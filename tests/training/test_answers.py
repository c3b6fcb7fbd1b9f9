"""Answers to texts of one's own, and rows that came as ids: trained, judged, reported."""

from __future__ import annotations

import json

import pytest
import torch

from utils.core.config import ConfigError
from utils.data.task import TaskDataConfig, prepare_task
from utils.training.answers import answer_texts
from utils.training.recipe import load_recipe
from utils.training.recipes import finish, train

SHORT = {
    "max_steps": 4, "batch_size": 4, "warmup_steps": 1, "eval_every": 2, "eval_batches": 2, "sample_every": 0,
    "device": "cpu", "precision": "fp32", "trackers": (),
}  # fmt: skip


@pytest.fixture
def hugging_face(tmp_path):
    """The folder of a tokenizer of 97 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({f"w{at}": at for at in range(96)} | {"<end>": 96}, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>").save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_rows_that_came_as_ids_are_trained_on_and_reported_without_characters(hugging_face, tmp_path):
    path = tmp_path / "ids.jsonl"
    path.write_text(
        "".join(json.dumps({"input_ids": [(at * 7 + n) % 96 for n in range(12)]}) + "\n" for at in range(90))
    )
    tokenizer = {"kind": "hf", "name": str(hugging_face), "vocab_size": 512}
    rows = {"source": str(path), "tokenizer": tokenizer, "block_size": 8}
    recipe = load_recipe("gpt_wikitext_smoke").replace(rows=rows, train=SHORT, sample={"max_new_tokens": 3})
    result = train(recipe, tmp_path / "runs")
    columns = set(result.run.metrics())
    assert "validation/perplexity" in columns
    assert not {name for name in columns if "bits" in name}
    assert "perplexity" in finish(result.run).read_text()


class Echo(torch.nn.Module):
    """A classifier of ids: class 1 where the second text holds more ids than the first; records what it read."""

    def __init__(self, separator: int):
        super().__init__()
        self.weight, self.separator, self.read = torch.nn.Parameter(torch.zeros(1)), separator, []

    def forward(self, input_ids, attention_mask):
        self.read = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask)]
        longer = [row.index(self.separator) < len(row) / 2 for row in self.read]
        return torch.nn.functional.one_hot(torch.tensor(longer).long(), 2).float()


def test_a_classifier_of_two_texts_reads_both(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"text": f"the cat {at}", "other": f"a dog {at} runs", "label": at % 2} for at in range(60)]
    path.write_text("\n".join(map(json.dumps, rows)))
    data = prepare_task(
        TaskDataConfig(source=str(path), second="other", tokenizer={"kind": "wordpiece", "vocab_size": 300}),
        "classifier", tmp_path / "data",
    )  # fmt: skip
    (separator,) = data.special.between
    model = Echo(separator)
    said = answer_texts(model, data, ["the cat\ta dog runs dog", "the cat the cat\ta"])
    first, second = (data.tokenizer.encode(text).tolist() for text in ("the cat", "a dog runs dog"))
    assert model.read[0] == [*data.special.before, *first, separator, *second, *data.special.after]
    assert [text[0] for text in said.table["model says"]] == ["1", "0"]
    with pytest.raises(ConfigError, match="reads two texts, the columns text and other; got 'the cat'.*a tab between"):
        answer_texts(model, data, ["the cat"])
