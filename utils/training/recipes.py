"""The steps from a recipe to a trained run. The notebook takes them one by one, the command line all with `train`."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import nn

from utils.core import repro
from utils.core.check import Report
from utils.core.checkpoints import Checkpoint
from utils.core.config import ConfigError
from utils.core.device import choose, make_fabric
from utils.core.run import Run
from utils.data.fitting import tokenizer_checks
from utils.data.loaders import TextData, prepare, preview
from utils.data.task import TaskData, prepare_task
from utils.data.text_report import text_report
from utils.data.tokenizers import Tokenizer, load_tokenizer
from utils.models.blocks import TransformerConfig
from utils.models.generate import Samples, sample_temperatures
from utils.models.transformer import GPT
from utils.training.answers import Answers, answer_sampler, answers, final_metrics, preview_rows
from utils.training.callbacks import Sampler, text_sampler
from utils.training.evaluate import evaluate
from utils.training.form import recipe_from_form
from utils.training.objectives import OBJECTIVES
from utils.training.recipe import Recipe, load_recipe
from utils.training.report import write_report
from utils.training.result import Result
from utils.training.runs import best_checkpoint, substituted, taken_up, train_model
from utils.training.sourced import Needs, build_sourced

if TYPE_CHECKING:
    import pandas

OnEvaluation = Callable[[int, dict[str, float]], None]
log = logging.getLogger(__name__)
CLASSES = "classes.json"  # beside a run's tokenizer
__all__ = ["Recipe", "load_recipe", "recipe_from_form"]


def prepare_data(recipe: Recipe, root: Path) -> TextData | TaskData:
    """The recipe's data, tokenised under `root`, or opened where it was before."""
    return prepare(recipe.data, root) if recipe.rows is None else prepare_task(recipe.rows, recipe.task, root)


def preview_of(recipe: Recipe, data: TextData | TaskData) -> pandas.DataFrame | Answers:
    """Some rows of a batch, as the model meets them."""
    if recipe.task == "causal_lm":
        return preview(next(data.train.batches(recipe.train.batch_size, seed=recipe.train.seed)), data.tokenizer)
    return preview_rows(data)


def data_report(recipe: Recipe, data: TextData | TaskData) -> Report:
    """What is known of rows, or of a text, and what may be wrong with them."""
    return data.report(recipe.train.batch_size) if isinstance(data, TaskData) else text_report(data)


def tokenizer_report(recipe: Recipe, model: nn.Module, data: TextData | TaskData) -> Report:
    """Whether the tokenizer fits the model and the task, and gives the first validation texts back."""
    rows = next(data.validation.batches(3))["input_ids"].tolist()
    checks = tokenizer_checks(data.tokenizer, recipe.task, model, [data.tokenizer.decode(row) for row in rows])
    return Report("Tokenizer and model", checks, {"tokenizer": f"{data.tokenizer.vocab_size:,} ids"}, word="fitting")


def untrained(recipe: Recipe, model: nn.Module, data: TextData | TaskData) -> pandas.DataFrame:
    """Parameters, the loss on validation before any training, and ln V, the loss of an even guess among V outputs."""
    import pandas

    loss = evaluate(model, OBJECTIVES[recipe.task], data.validation, recipe.train)["loss"]
    classes = recipe.task == "classifier"
    outputs = len(data.classes) if classes else data.tokenizer.vocab_size
    row = {"parameters": f"{model.num_parameters():,}", "untrained loss": loss, "ln V": math.log(outputs)}
    return pandas.DataFrame([row]).round(3)


def build_model(recipe: Recipe, data: TextData | TaskData) -> nn.Module:
    """The recipe's model, sized to the data; what is new of it is drawn from the recipe's seed."""
    needed = data.tokenizer.vocab_size
    if recipe.source.name:
        classes = len(data.classes) if recipe.task == "classifier" else None
        needs = Needs(recipe.task, recipe.longest, needed, classes)
        return build_sourced(recipe.source, needs, data.tokenizer, seed=recipe.train.seed)
    config = recipe.model
    if config.vocab_size is not None and config.vocab_size < needed:
        raise ConfigError(
            f"model.vocab_size {config.vocab_size} is less than the tokenizer's {needed}; raise it or leave it out."
        )
    repro.seed_everything(recipe.train.seed)
    return GPT(_sized(recipe, needed))


def prompt_of(recipe: Recipe, data: TextData | TaskData) -> str:
    """What samples begin with: the recipe's prompt, or the first 32 tokens of the validation text."""
    first = next(data.validation.batches(1))["input_ids"][0, :32]
    return recipe.prompt or data.tokenizer.decode(first.tolist())


def _sized(recipe: Recipe, vocab_size: int) -> TransformerConfig:
    """The model's config with what it leaves to the tokenizer and the data filled in."""
    config = recipe.model
    sizes = {
        "vocab_size": config.vocab_size or vocab_size,
        "context_length": config.context_length or recipe.longest,
    }
    return config.model_copy(update=sizes)


def start_run(
    recipe: Recipe, data: TextData | TaskData, root: Path, *, resume: Literal["auto", "never"] = "auto"
) -> Run:
    """The run of this recipe under `root`, taken up or made new, with its tokenizer inside."""
    return _with_tokenizer(Run.start(root, recipe.name, recipe, resume=resume), data)


def train(
    recipe: Recipe, root: Path, *, resume: Literal["auto", "never"] = "auto", on_evaluation: OnEvaluation | None = None
) -> Result:
    """Recipe in, trained run out: prepare, build, `fit`. Works alike in one process and under torch.distributed.run.

    `on_evaluation(step, metrics)` is as in `fit`.
    """
    return _train(recipe, root, lambda data: start_run(recipe, data, root, resume=resume), on_evaluation=on_evaluation)


def go_on(run: Run, recipe: Recipe) -> Result:
    """Take up `run` where it stopped; or, where `recipe` would change its weights, a branch of it."""
    take_run, parent = taken_up(run, recipe)
    return _train(recipe, run.path.parent, lambda data: _with_tokenizer(take_run(), data) if parent else run, parent)


def _train(
    recipe: Recipe,
    root: Path,
    take_run: Callable[[TextData | TaskData], Run],
    parent: Checkpoint | None = None,
    on_evaluation: OnEvaluation | None = None,
) -> Result:
    return train_model(
        recipe.train,
        prepare=lambda: prepare_data(recipe, root / "data"),
        build=lambda data: (build_model(recipe, data), OBJECTIVES[recipe.task]),
        take_run=take_run,
        sampler=lambda run, data: sampler_of(recipe, run, data),
        parent=parent,
        on_evaluation=on_evaluation,
    )


def _with_tokenizer(run: Run, data: TextData | TaskData) -> Run:
    """The run with what its model's answers mean: its tokenizer, and the names of its classes."""
    folder = run.path / "tokenizer"
    folder.mkdir(exist_ok=True)
    data.tokenizer.save(folder)
    if isinstance(data, TaskData) and data.task == "classifier":
        (folder / CLASSES).write_text(json.dumps(data.classes, ensure_ascii=False), encoding="utf-8")
    return run


def sampler_of(recipe: Recipe, run: Run, data: TextData | TaskData) -> Sampler:
    """What shows how far training is: a text of a language model, else answers to the first validation rows."""
    if recipe.task == "causal_lm":
        return text_sampler(run, data.tokenizer, recipe.sample, prompt_of(recipe, data))
    return answer_sampler(run, data)


def shown(recipe: Recipe, model: nn.Module, data: TextData | TaskData) -> Samples | Answers:
    """What a trained model has to say: continuations at several temperatures, or answers to validation rows."""
    if recipe.task == "causal_lm":
        return sample_temperatures(model, data.tokenizer, prompt_of(recipe, data), recipe.sample)
    return answers(model, data)


def finish(run: Run) -> Path:
    """Evaluate a run's best weights, sample from them, write report.md. Several processes share the evaluation."""
    trained = open_trained(run.path)
    recipe, data = trained.recipe, trained.data()
    fabric = make_fabric(choose(recipe.train.device, recipe.train.precision))
    metrics = final_metrics(trained.model, data, recipe.train, task=recipe.task, fabric=fabric)
    if not fabric.is_global_zero:
        return run.path / "report.md"
    return write_report(run, metrics, shown(recipe, trained.model, data))


@dataclass(frozen=True)
class Trained:
    """A run's model with its best weights, its recipe and its tokenizer."""

    run: Run
    recipe: Recipe
    model: nn.Module
    tokenizer: Tokenizer
    step: int
    note: str = ""
    """why these weights are not the best; empty where they are"""

    def data(self) -> TextData | TaskData:
        """The run's data, prepared again if it is no longer there."""
        return prepare_data(self.recipe, self.run.path.parent / "data")


def open_trained(path: str | Path) -> Trained:
    """The model of a run folder: the weights of its best checkpoint, or its newest where none was evaluated."""
    run = Run.open(path)
    recipe = Recipe.load(run.path / "config.yaml")
    tokenizer = load_tokenizer(run.path / "tokenizer")
    checkpoint = best_checkpoint(run)
    model = _rebuilt(recipe, run, tokenizer)
    model.load_state_dict(checkpoint.load()["model"])
    note = substituted(run, checkpoint, by_loss=True)
    if note:
        log.warning(note)
    return Trained(run, recipe, model.eval(), tokenizer, checkpoint.step, note)


def _rebuilt(recipe: Recipe, run: Run, tokenizer: Tokenizer) -> nn.Module:
    """The model of a run, its weights as they come."""
    if not recipe.source.name:
        return GPT(_sized(recipe, tokenizer.vocab_size))
    classes = json.loads((run.path / "tokenizer" / CLASSES).read_text()) if recipe.task == "classifier" else []
    needs = Needs(recipe.task, recipe.longest, tokenizer.vocab_size, len(classes) or None)
    return build_sourced(recipe.source, needs, tokenizer, seed=recipe.train.seed)
