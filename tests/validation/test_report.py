"""From a source to a report: the facts in it, the answer of a check whose model raises, and what the checks cost."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from torch import nn

from utils.core.check import Check
from utils.core.config import parse_overrides
from utils.models.adapter import adapt
from utils.models.source import SourceError, find, load
from utils.training.recipes import load_recipe
from utils.validation.cost import TensorMemory
from utils.validation.report import adapt_loaded, ask, next_step, parameter_table, run_tier, validate
from utils.validation.settings import ValidationConfig
from utils.validation.steady import effort
from utils.validation.tier1 import TIER1
from utils.validation.tier2 import TIER2

SMOKE = ValidationConfig(scale="smoke", device="cpu")
TINY = {"num_layers": 2, "num_heads": 2, "width": 32, "vocab_size": 97, "context_length": 32}
CODE = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self, vocab_size, max_seq_len):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, 16)
        self.places = nn.Embedding(max_seq_len, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.head = nn.Linear(16, vocab_size)

    def forward(self, x):
        T = x.shape[1]
        mask = MASK
        h = self.tokens(x) + self.places(torch.arange(T, device=x.device))
        return self.head(self.layer(h, src_mask=mask))
"""
CAUSAL = "nn.Transformer.generate_square_subsequent_mask(T, device=x.device)"


def model_file(folder, mask: str):
    (folder / "model.py").write_text(CODE.replace("MASK", mask))
    (folder / "config.json").write_text(json.dumps({"vocab_size": 61, "max_seq_len": 24, "model_name": "Model"}))
    return folder


def test_a_report_says_what_was_checked(tmp_path):
    folder = model_file(tmp_path, CAUSAL)
    report = validate(ValidationConfig(source=str(folder), scale="smoke", seed=3))
    assert report.sound, report
    assert len(report.checks) == len(TIER1) + len(TIER2)
    assert report.facts["source"].endswith("model.py")
    assert report.facts["kind"].startswith("causal_lm (inferred")
    assert report.facts["vocabulary"].startswith("61 ")
    assert report.facts["context"].startswith("24 ")
    assert report.facts["torch"] == torch.__version__
    assert report.facts["seed"] == "3"
    found = find(str(folder))
    assert {f"sha256 of {name}": sha for name, sha in found.sha256.items()}.items() <= report.facts.items()
    page, data = report.save(tmp_path / "out", "validation_report")
    stored = json.loads(data.read_text())
    assert [check["name"] for check in stored["checks"]] == [check.name for check in report.checks]
    assert found.sha256["model.py"] in page.read_text()


def test_a_model_whose_kind_is_read_off_a_leak_warns_and_fails_where_it_is_declared_causal(tmp_path):
    folder = model_file(tmp_path, "None")
    inferred = validate(ValidationConfig(source=str(folder), scale="smoke"))
    assert inferred.sound
    assert inferred["kind"].status == "warn"
    assert "kind=causal_lm" in inferred["kind"].summary
    declared = validate(ValidationConfig(source=str(folder), scale="smoke", kind="causal_lm"))
    assert [check.name for check in declared.checks if check.status == "fail"] == ["causality"]
    assert declared.verdict.startswith("Not sound: causality fails")


def test_an_exception_of_the_model_is_the_checks_answer():
    loaded = load(find("example:gpt"), overrides=TINY)
    adapter = adapt_loaded(loaded, ValidationConfig(device="cpu"))

    def troubled(adapter, much, *, seed):
        raise ValueError("shapes do not fit")

    found = ask(troubled, adapter, effort("smoke"))
    assert (found.name, found.status, found.critical) == ("troubled", "fail", True)
    assert "ValueError" in found.summary
    assert "test_report.py" in found.summary
    assert "shapes do not fit" in found.summary
    assert not ask(troubled, adapter, effort("smoke"), critical=False).critical


def test_a_check_that_answers_is_passed_on():
    answer = Check("fine", "pass", "as it should be")
    assert ask(lambda adapter, much, *, seed: answer, None, None) is answer


def test_another_model_is_never_taken(tmp_path):
    with pytest.raises(SourceError, match="nowhere"):
        validate(ValidationConfig(source=str(tmp_path / "nowhere.py")))


@pytest.mark.parametrize(
    "shape",
    [{**TINY, "num_layers": 4, "width": 128}, {**TINY, "vocab_size": 5000, "width": 64}, {**TINY, "num_layers": 8}],
    ids=["wide", "large vocabulary", "deep"],
)
def test_no_check_takes_over_three_times_the_memory_of_a_training_step(shape):
    """Weights and all tensors that a check makes, against weights, gradients, moments and activations of a step."""
    loaded = load(find("example:gpt"), overrides={**shape, "context_length": 64})
    adapter, much = adapt_loaded(loaded, ValidationConfig(device="cpu")), effort("smoke")
    weights = sum(parameter.numel() * parameter.element_size() for parameter in adapter.model.parameters())
    batch = adapter.batch(much.rows, 64, seed=0)
    with TensorMemory() as step:
        optimizer = torch.optim.AdamW(adapter.model.parameters(), lr=0.0)
        adapter.loss(batch).backward()
        optimizer.step()
    adapter.model.zero_grad(set_to_none=True)
    assert step.peak > 3 * weights  # gradients and two moments, at least
    for check in (*TIER1, *TIER2):
        with TensorMemory() as used:
            check(adapter, much)
        assert weights + used.peak <= 3 * (weights + step.peak), check.__name__


def test_parameter_table_counts_every_number_once():
    loaded = load(find("example:gpt"), overrides=TINY)
    table = parameter_table(loaded.model)
    numbers = table["numbers"].str.replace(",", "").astype(int)
    # 97 x 32 embedding (tied head); two blocks of 3 x 32 x 32 + 32 x 32 + 2 x 4 x 32 x 32 and two norms of 32; a norm
    assert numbers.sum() == 97 * 32 + 2 * (12 * 32 * 32 + 2 * 32) + 32 == loaded.model.num_parameters()


def test_the_next_step_names_overrides_that_make_the_same_model_in_training():
    loaded = load(find("example:gpt"), overrides=TINY)
    text = next_step(ValidationConfig(), loaded, adapt_loaded(loaded, ValidationConfig(device="cpu")))
    overrides = text.strip().splitlines()[-1].strip()
    recipe = load_recipe("char_lm_cpu", shlex.split(overrides))
    assert recipe.model == type(recipe.model)(**{**loaded.config, "vocab_size": None})
    assert parse_overrides(overrides.split())["data"]["block_size"] == 32


def test_the_next_step_of_another_model_names_its_source():
    loaded = load(find("example:bert"), overrides=TINY)
    config = ValidationConfig(source="example:bert", config=TINY, device="cpu")
    text = next_step(config, loaded, adapt_loaded(loaded, config))
    assert "masked_lm" in text
    names: dict = {}
    exec(text[text.index("from utils.models.source") :], names)
    again = {key: tuple(value.shape) for key, value in names["model"].state_dict().items()}
    assert again == {key: tuple(value.shape) for key, value in loaded.model.state_dict().items()}


class Broken(nn.Module):
    """NaN for every input."""

    kind, vocab_size, context_length = "causal_lm", 31, 16

    def __init__(self):
        super().__init__()
        self.tokens, self.head = nn.Embedding(31, 8), nn.Linear(8, 31)

    def forward(self, x):
        return self.head(self.tokens(x)) * float("nan")


def test_a_model_of_nan_fails_in_one_place_and_is_asked_no_more():
    adapter = adapt(Broken())
    checks = [*run_tier(adapter, 1, SMOKE).checks, *run_tier(adapter, 2, SMOKE).checks]
    assert [check.name for check in checks if check.status == "fail"] == ["numerical stability"]
    assert not [check for check in checks if check.status == "warn"]


class Padded(nn.Module):
    """torch's encoder on padded rows, whose fast path makes nested tensors; `pad` hides id 0, the mask is torch's."""

    vocab_size, context_length = 31, 16

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.tokens, self.layers, self.head = nn.Embedding(31, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)

    def forward(self, src, src_key_padding_mask=None):
        mask = torch.zeros_like(src, dtype=torch.bool) if src_key_padding_mask is None else src_key_padding_mask
        seen = (~mask).unsqueeze(-1).float()
        return self.head((self.layers(self.tokens(src), src_key_padding_mask=mask) * seen).sum(1) / seen.sum(1))


def test_torchs_padding_mask_is_given_with_its_own_meaning_and_nested_tensors_are_read():
    torch.manual_seed(0)
    report = run_tier(adapt(Padded()), 1, SMOKE)
    assert report.sound, report
    assert report["padding invariance"].status == "pass"


@pytest.mark.parametrize("sizes", [(90, 40), (40, 90)])
def test_a_translator_may_have_two_vocabularies(sizes):
    class Translator(nn.Module):
        context_length = 16

        def __init__(self):
            super().__init__()
            self.source, self.target = (nn.Embedding(size, 16) for size in sizes)
            self.layers = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
            self.head = nn.Linear(16, sizes[1])

        def forward(self, src, tgt):
            mask = nn.Transformer.generate_square_subsequent_mask(tgt.shape[1])
            return self.head(self.layers(self.source(src), self.target(tgt), tgt_mask=mask, tgt_is_causal=True))

    torch.manual_seed(0)
    adapter = adapt(Translator())
    assert (adapter.vocab_size, adapter.target_size, adapter.labels) == (*sizes, sizes[1])
    report = run_tier(adapter, 1, SMOKE)
    assert report.sound, report
    assert f"ln {sizes[1]}" in report["initialisation"].summary


def test_batch_statistics_in_training_are_warned_of_in_language_models():
    class Normed(nn.Module):
        kind, vocab_size, context_length = "causal_lm", 31, 16

        def __init__(self):
            super().__init__()
            self.tokens, self.norm, self.head = nn.Embedding(31, 16), nn.BatchNorm1d(16), nn.Linear(16, 31)

        def forward(self, x):
            return self.head(self.norm(self.tokens(x).transpose(1, 2)).transpose(1, 2))

    check = run_tier(adapt(Normed()), 1, SMOKE)["batch independence"]
    assert check.status == "warn"
    assert "BatchNorm" in check.summary
