"""Answers as JSON can hold them, from the tensors that a model gave. Leaves out generated text (`rows`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .grids import grid_of
from .requests import Request
from .texts import Text


def answer(
    request: Request, outputs: Sequence[Tensor], text: Text | None, classes: Sequence[str] | None
) -> list | dict:
    """The answer to one request, from one tensor an item; `classes` names those of a classifier."""
    if request.task.startswith("grid-"):
        grids = [grid_of(canvas) for canvas in outputs]
        if request.task == "grid-sampling":
            return {"grids": grids, **request.options}
        exact = [bool((one == other).all()) for one, other in zip(outputs, request.items)]
        return {"grids": grids, "exact": exact}
    if request.task == "feature-extraction":
        if request.options.get("normalize"):
            outputs = [one / one.norm().clamp(min=1e-12) for one in outputs]
        return [one.tolist() for one in outputs]
    if request.task == "text-classification":
        return [_labels(one, request.options, classes) for one in outputs]
    found = [_filled(item, one, request.options, text) for item, one in zip(request.items, outputs)]
    return found[0] if request.single else found


def _labels(logits: Tensor, options: dict[str, Any], classes: Sequence[str] | None) -> list[dict[str, Any]]:
    how = options.get("function_to_apply", "softmax")
    scores = {"softmax": lambda: logits.softmax(-1), "sigmoid": logits.sigmoid, "none": lambda: logits}[how]()
    names = classes or [f"LABEL_{at}" for at in range(len(scores))]
    best = scores.topk(min(options.get("top_k", len(scores)), len(scores)))
    return [{"label": names[at], "score": score} for at, score in zip(best.indices.tolist(), best.values.tolist())]


def _filled(item: list[int], logits: Tensor, options: dict[str, Any], text: Text) -> list:
    """The likeliest tokens of the one mask; of several masks, a list a mask."""
    found = []
    places = [at for at, token in enumerate(item) if token == text.mask]
    for place, scores in zip(places, logits.softmax(-1)):
        best = scores.topk(min(options.get("top_k", 5), len(scores)))
        found.append(
            [
                {
                    "score": score,
                    "token": token,
                    "token_str": text.decode([token]),
                    "sequence": text.said([*item[:place], token, *item[place + 1 :]]),
                }
                for token, score in zip(best.indices.tolist(), best.values.tolist())
            ]
        )
    return found[0] if len(found) == 1 else found
