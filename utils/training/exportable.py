"""`exportable_of` a run: its best weights as graphs of tensors alone, and what others must know to use them.

Leaves out what is written of it (`publish`), and the VAE's and the policy's (`vae.exportable`, `rl.exportable`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from utils.core.run import Run
from utils.experiments.scores import ended
from utils.models.called import Called
from utils.models.exportable import Exportable
from utils.models.model import Model
from utils.training.intervals import RESULTS
from utils.training.recipes import CLASSES, open_trained
from utils.training.text_parts import Rows, of_transformers, text_parts


def exportable_of(run: Run | Path, *, license: str = "") -> Exportable:
    """What publishing needs of a run of `training.recipes`: the weights of its best checkpoint, on the CPU in fp32."""
    trained = open_trained(run.path if isinstance(run, Run) else run)
    recipe, folder = trained.recipe, trained.run.path / "tokenizer"
    model = trained.model.float().eval()
    rows = Rows(trained.tokenizer.vocab_size, model.config.context_length)
    classes = json.loads((folder / CLASSES).read_text(encoding="utf-8")) if recipe.task == "classifier" else []
    about = described(model)
    if classes and about["loader"] == "transformers":
        about["model"].config.id2label = dict(enumerate(map(str, classes)))
        about["model"].config.label2id = {name: at for at, name in about["model"].config.id2label.items()}
    return Exportable(
        run=trained.run,
        name=recipe.name,
        family=recipe.family,
        kind=recipe.task,
        step=trained.step,
        origin=origin_of(recipe.source.name, recipe.source.revision),
        tokenizer=folder,
        classes=tuple(classes),
        metrics=metrics_at(trained.run, trained.step) | judged(trained.run, trained.step),
        parts=text_parts(model, recipe.task, rows),
        license=license,
        note=trained.note or unfinished(trained.run, recipe.train.max_steps),
        **about,
    )


def unfinished(run: Run, total: int | None) -> str:
    """That training stopped before its end, and where; empty where it did not."""
    status, step = ended(run)
    if status not in ("interrupted", "failed"):
        return ""
    of = f" of {total}" if total else ""
    return f"training {'was interrupted' if status == 'interrupted' else 'failed'} at step {step}{of}"


def described(model: nn.Module) -> dict[str, Any]:
    """What an `Exportable` says of a model itself: the module to publish, and how its weights become one again."""
    inner = model.model if isinstance(model, Called) else model
    if isinstance(inner, Model):
        kind = type(inner)
        config = inner.config.model_dump(mode="json")
        return {"model": inner, "loader": "ours", "builds": f"{kind.__module__}:{kind.__name__}", "config": config}
    return {"model": inner, "loader": "transformers" if of_transformers(inner) else "weights"}


def origin_of(name: str, revision: str = "") -> str:
    """A source as others can find it: of a folder or file on this machine its last name alone."""
    place = Path(name.removeprefix("hf:").removeprefix("file:")).expanduser()
    if name and (place.is_absolute() or place.exists()):
        return place.name
    return "@".join(one for one in (name, revision) if one)


def metrics_at(run: Run, step: int) -> dict[str, float]:
    """The metrics of validation that a run logged at a step, by their names there."""
    frame = run.metrics()
    row = frame.loc[step].dropna() if step in frame.index else {}
    return {name: float(value) for name, value in dict(row).items() if name.startswith("validation/")}


def judged(run: Run, step: int) -> dict[str, float | dict[str, float]]:
    """The metrics of whole splits as the run's report has them, with their intervals; {} where it judged other weights.

    The file is that of `training.intervals.write_metrics`.
    """
    content = results(run)
    if content.get("step") != step:
        return {}
    return named(content["results"])


def results(run: Run) -> dict[str, Any]:
    """What the run's evaluation left in results/metrics.json; {} where there is none."""
    path = run.path / RESULTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def named(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, float | dict[str, float]]:
    """split/metric -> its number, or value, low and high; what was not finite is left out."""
    found = {f"{split}/{name}": one for split, metrics in splits.items() for name, one in metrics.items()}
    ends = ("value", "low", "high")
    return {
        name: {end: one[end] for end in ends} if isinstance(one, Mapping) else one
        for name, one in found.items()
        if one is not None and not (isinstance(one, Mapping) and None in (one[end] for end in ends))
    }
