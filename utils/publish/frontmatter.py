"""The front matter of a model card: what the Hub reads of it, as YAML; made by the Hub's own client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from utils.publish.errors import client
from utils.publish.measured import finite
from utils.publish.provenance import dataset

TASKS = {  # kind -> the Hub's name of the task, https://huggingface.co/tasks
    "causal_lm": "text-generation",
    "masked_lm": "fill-mask",
    "seq2seq": "text2text-generation",
    "classifier": "text-classification",
    "vae": "unconditional-image-generation",
}


def front_matter(metadata: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """The YAML between the lines of three dashes."""
    hub = client()
    origin = metadata.get("origin", "")
    base = origin.removeprefix("hf:").partition("@")[0]
    card = hub.ModelCardData(
        license=metadata.get("license", "").lower() or None,
        library_name="transformers" if metadata["loader"] == "transformers" else "pytorch",
        pipeline_tag=TASKS.get(metadata["kind"]),
        base_model=base if re.fullmatch(r"[\w.-]+/[\w.-]+", base) and origin.startswith("hf:") else None,
        tags=sorted({"run-all", metadata["kind"].replace("_", "-"), *_graphs(metadata)}),
        model_name=metadata["name"],
        eval_results=_results(hub, metadata, recipe) or None,
    )
    return card.to_yaml().strip()


def _graphs(metadata: Mapping[str, Any]) -> list[str]:
    """Passed formats that the Hub has a tag for."""
    passed = {name for name, one in metadata.get("formats", {}).items() if one.get("status") == "pass"}
    return [name for name in ("safetensors", "onnx") if name in passed]


def _results(hub: Any, metadata: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[Any]:
    """Metrics as the Hub lists them; one that is not finite is left out, since the list cannot hold it."""
    name, task = dataset(recipe).removeprefix("hf:") or "unknown", TASKS.get(metadata["kind"], metadata["kind"])
    return [
        hub.EvalResult(
            task_type=task,
            dataset_type=re.sub(r"[^\w./-]+", "-", name),
            dataset_name=name,
            dataset_split=metric.rpartition("/")[0] or None,
            metric_type=metric.rpartition("/")[2],
            metric_name=metric,
            metric_value=round(value, 6),
        )
        for metric, value in finite(metadata.get("metrics") or {}).items()
    ]
