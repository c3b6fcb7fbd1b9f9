"""From a source to a verdict: load, adapt, run the checks of a tier, and put the reports together."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

import torch
from torch import nn

from utils.core.check import Check, Report
from utils.core.config import flatten
from utils.core.device import choose
from utils.core.repro import environment
from utils.models.adapter import Adapter, adapt
from utils.models.source import Loaded, find, load
from utils.validation import cost, flops, stability, structure
from utils.validation.settings import ValidationConfig
from utils.validation.stability import is_finite
from utils.validation.steady import Effort, effort, first_line, untouched
from utils.validation.tier1 import TIER1
from utils.validation.tier2 import TIER2

if TYPE_CHECKING:
    import pandas

Question = Callable[..., Check]
TIERS: dict[int, tuple[Question, ...]] = {1: TIER1, 2: TIER2}
WITHOUT_NUMBERS = {  # which can be asked of a model whose outputs are NaN
    structure.kind, structure.output_shapes, structure.vocabulary_range, stability.numerical_stability, cost.memory,
    cost.speed, flops.flops,
}  # fmt: skip
TITLES = {1: ("Tier 1: critical checks", "sound"), 2: ("Tier 2: analysis", "in order")}


def adapt_loaded(loaded: Loaded, config: ValidationConfig) -> Adapter:
    """The adapter of a loaded model, on the device asked for.

    It is called on the CPU first: an index out of range breaks a GPU's context for the whole process. A model that
    fails there at its full context or at an end of its vocabulary stays on the CPU, and `read["device"]` says so.
    """
    known = {"kind": config.kind or loaded.kind, "config": loaded.config}
    more = {"build": loaded.build, "pretrained": loaded.pretrained}
    device = choose(config.device, "fp32").device
    adapter = adapt(loaded.model, **known, **more)
    if device.type == "cpu":
        return adapter
    much = effort(config.scale)
    checks = [ask(question, adapter, much) for question in (structure.output_shapes, structure.vocabulary_range)]
    failed = [check.name for check in checks if check.status == "fail"]
    if failed:
        adapter.read["device"] = f"not {device}, which could break at its failure in {', '.join(failed)}"
        return adapter
    return adapt(loaded.model, **known, **more, device=device)


def run_tier(adapter: Adapter, tier: int, config: ValidationConfig, *, bar: TextIO | None = None) -> Report:
    """Ask every question of a tier, with a progress bar (None: on stdout, as notebooks show it best)."""
    from tqdm import tqdm

    (title, word), much = TITLES[tier], effort(config.scale)
    report = Report(title, word=word)
    sound = has_numbers(adapter, much, config.seed)
    with tqdm(TIERS[tier], file=bar or sys.stdout, unit="check", leave=False, dynamic_ncols=True) as questions:
        for question in questions:
            name = question.__name__.replace("_", " ")
            questions.set_description(name)
            if not sound and question not in WITHOUT_NUMBERS:
                report.checks.append(Check(name, "skip", "the output is not finite, see numerical stability"))
                continue
            report.checks.append(ask(question, adapter, much, seed=config.seed, critical=tier == 1))
    return report


def has_numbers(adapter: Adapter, much: Effort, seed: int) -> bool:
    """Whether an ordinary input gives finite outputs; without them most questions have no answer."""
    with untouched(adapter, seed=seed), torch.no_grad():
        try:
            return is_finite(adapter(adapter.batch(much.rows, much.length_for(adapter), seed=seed)))
        except Exception:  # each question will meet it, and tell
            return True


def ask(question: Question, adapter: Adapter, much: Any, *, seed: int = 0, critical: bool = True) -> Check:
    """The check's answer; where the model raises on the way, that is the answer."""
    try:
        return question(adapter, much, seed=seed)
    except Exception as error:  # a stranger's model may raise anything, anywhere
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
        summary = f"the model raised {type(error).__name__} at {where}: {first_line(error)}"
        return Check(question.__name__.replace("_", " "), "fail", summary, critical=critical)


def join(config: ValidationConfig, loaded: Loaded, adapter: Adapter, *reports: Report) -> Report:
    """One report of several tiers, under the facts that say what was checked: source, revision, hashes, environment."""
    found, where = loaded.source, environment(packages=False)
    facts = {"source": found.name, **found.facts, "built": loaded.chosen, **adapter.facts()}
    facts |= {f"sha256 of {name}": digest for name, digest in found.sha256.items()}
    facts["config"] = ", ".join(f"{key}={value}" for key, value in flatten(_plain(loaded.config))) or "none"
    facts |= {"scale": config.scale, "seed": str(config.seed)}
    facts |= {"python": where["python"], "torch": torch.__version__, "system": where["os"]}
    return Report(f"Validation of {found.name}", [check for report in reports for check in report.checks], facts)


def validate(config: ValidationConfig) -> Report:
    """All of it: find, load, adapt, tiers 1 and 2. Raises ConfigError where the model cannot be loaded or called."""
    found = find(config.source, revision=config.revision)
    loaded = load(found, trust_code=config.trust_code, overrides=config.config, kind=config.kind, seed=config.seed)
    adapter = adapt_loaded(loaded, config)
    return join(config, loaded, adapter, *(run_tier(adapter, tier, config, bar=sys.stderr) for tier in TIERS))


def parameter_table(model: nn.Module) -> pandas.DataFrame:
    """A row for each parameter: its name, shape, numbers, and share of all. A tied one stands once."""
    import pandas

    rows = [
        {"parameter": name, "shape": " x ".join(map(str, parameter.shape)), "numbers": parameter.numel()}
        for name, parameter in model.named_parameters()
    ]
    table = pandas.DataFrame(rows, columns=["parameter", "shape", "numbers"])
    share = (table["numbers"] / max(1, table["numbers"].sum())).map("{:.1%}".format)
    return (
        table.assign(numbers=table["numbers"].map("{:,}".format), share=share).set_index("parameter").rename_axis(None)
    )


def next_step(config: ValidationConfig, loaded: Loaded, adapter: Adapter) -> str:
    """How this very model is trained: by training.ipynb where it is our GPT, else by `fit` from Python."""
    if loaded.source.name == "example:gpt":
        sizes = {key: value for key, value in loaded.config.items() if key != "vocab_size" and value is not None}
        overrides = [f"model.{key}={json.dumps(value)}" for key, value in sizes.items()]
        return (
            "Open training.ipynb, put this line into its field `overrides`, and press Run all (the vocabulary is the "
            f"tokenizer's there):\n\n{' '.join(overrides)} data.block_size={sizes['context_length']}"
        )
    revision = loaded.source.facts.get("revision", config.revision)
    return (
        "training.ipynb trains our GPT so far. From Python, `fit` of utils/training takes any model; this one, a "
        f"{adapter.kind}, is loaded again by:\n\n"
        "from utils.models.source import find, load\n\n"
        f"found = find({loaded.source.name!r}, revision={revision!r})\n"
        f"model = load(found, trust_code={config.trust_code}, overrides={config.config!r}, kind={config.kind!r}, "
        f"seed={config.seed}).model"
    )


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, texts and flags of a config; what a report has room for."""
    return {key: value for key, value in config.items() if isinstance(value, str | int | float | bool)}
