"""`exportable_of` a run: its best weights as graphs of tensors alone, and what others must know to use them.

Leaves out what is written of it (`publish`), and the VAE's and the policy's (`vae.exportable`, `rl.exportable`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from utils.core.run import Run
from utils.models.called import Called
from utils.models.exportable import Exportable
from utils.models.model import Model
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
        metrics=metrics_at(trained.run, trained.step),
        parts=text_parts(model, recipe.task, rows),
        license=license,
        **about,
    )


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
