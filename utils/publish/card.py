"""The model card: README.md of a published model, made from its metadata.json and what its run left.

It says what is known and names what is not. Equal folders make equal cards. Leaves out the dataset card
(`publish.datasets`).
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from utils.core.plots import plot_metrics
from utils.core.run import STAMP, Run
from utils.publish.errors import client

TASKS = {  # kind -> the Hub's name of the task, https://huggingface.co/tasks
    "causal_lm": "text-generation",
    "masked_lm": "fill-mask",
    "seq2seq": "text2text-generation",
    "classifier": "text-classification",
    "vae": "unconditional-image-generation",
}
WHAT = {
    "causal_lm": "A language model that continues text",
    "masked_lm": "A language model that fills in masked words",
    "seq2seq": "An encoder-decoder that turns one text into another",
    "classifier": "A classifier of text",
    "vae": "A variational autoencoder of ARC grids",
}
USES = {
    "causal_lm": "continuing text of the kind it was trained on",
    "masked_lm": "filling in masked words, and embeddings, of text of the kind it was trained on",
    "seq2seq": "texts and targets of the kind it was trained on",
    "classifier": "telling its classes apart in texts of the kind it was trained on",
    "vae": "encoding, sampling and completing ARC grids",
}
HERE = "Path(__file__).resolve().parent"  # how load_example.py finds its folder


def model_card(folder: Path, metadata: Mapping[str, Any], repo_id: str, *, picture: str = "") -> str:
    """The card of an export folder as it is published in `repo_id`; `picture` is the name of its training curves."""
    recipe = _recipe(folder)
    sections = [
        f"# {metadata['name']}\n\n{_summary(metadata)}",
        f"## Intended use and limits\n\n{_limits(metadata)}",
        f"## Load it\n\n{_loading(folder, repo_id)}",
        f"## Data\n\n{_data(recipe)}",
        f"## Metrics\n\n{_metrics(metadata)}",
        f"## Training\n\n![Training curves]({picture})" if picture else "",
        f"## Files\n\n{_formats(metadata)}",
        f"## Settings\n\n```yaml\n{_text(folder / 'run' / 'config.yaml').strip()}\n```" if recipe else "",
        f"## Environment\n\n{_environment(metadata)}",
    ]
    return f"---\n{_front(metadata, recipe)}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def curves(folder: Path) -> bytes | None:
    """A PNG of the training curves of an export folder's run; None where nothing was logged."""
    kept = folder / "run"
    if not ((kept / STAMP).is_file() and (kept / "metrics.jsonl").is_file()):
        return None
    drawn = kept / "figures" / "curves.png"
    if drawn.is_file():
        return drawn.read_bytes()
    try:
        figure = plot_metrics(Run.open(kept))
    except ValueError:  # no curve among what was logged
        return None
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
    return picture.getvalue()


def _front(metadata: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
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
    name, found = _dataset(recipe), []
    for metric, value in metadata.get("metrics", {}).items():
        split, _, kind = metric.rpartition("/")
        number = value["value"] if isinstance(value, Mapping) else value
        if math.isfinite(number):
            found.append(
                hub.EvalResult(
                    task_type=TASKS.get(metadata["kind"], metadata["kind"]),
                    dataset_type=re.sub(r"[^\w./-]+", "-", name.removeprefix("hf:")),
                    dataset_name=name.removeprefix("hf:"),
                    dataset_split=split or None,
                    metric_type=kind,
                    metric_name=metric,
                    metric_value=round(float(number), 6),
                )
            )
    return found


def _summary(metadata: Mapping[str, Any]) -> str:
    run, origin = metadata.get("run") or {}, metadata.get("origin", "")
    told = f"{WHAT.get(metadata['kind'], metadata['kind'])}: the weights of step {metadata['step']:,}"
    told += f" of run `{run['id']}`" if run.get("id") else ""
    told += f", trained from `{origin}`" if origin else ""
    classes = metadata.get("classes") or []
    return f"{told}." + (f" Its classes: {', '.join(f'`{one}`' for one in classes)}." if classes else "")


def _limits(metadata: Mapping[str, Any]) -> str:
    kind, limits = metadata["kind"], metadata.get("limits") or {}
    lines = [f"Meant for {USES.get(kind, 'what it was trained on')}, for study and experiment."]
    if limits.get("context_length"):
        lines.append(f"It sees at most {limits['context_length']:,} tokens at once; more are refused or cut.")
    if limits.get("vocab_size"):
        lines.append(f"Its tokenizer has {limits['vocab_size']:,} ids and was made for the training data alone.")
    lines.append("The numbers below are of the data's own split; on any other data it may do worse, and was not tried.")
    if kind in ("causal_lm", "seq2seq"):
        lines.append("What it writes is likely text, not true text, and repeats the faults of its data.")
    if kind == "classifier":
        lines.append("It answers with one of its classes for every text, also where none fits.")
    lines.append("Nothing is known of bias or safety: neither was measured. Do not let it decide about people.")
    licence = metadata.get("license")
    lines.append(f"License: {licence}." if licence else "No license is stated: ask its owner before you use it.")
    return "\n".join(f"- {line}" for line in lines)


def _loading(folder: Path, repo_id: str) -> str:
    example = _text(folder / "load_example.py")
    fetch = f'Path(snapshot_download("{repo_id}"))'
    code = re.sub(r'\A""".*?"""\n+', "", example, flags=re.DOTALL)
    shown = ""
    if HERE in code:
        code = "from huggingface_hub import snapshot_download\n" + code.replace(HERE, fetch)
        shown = f"```python\n{code.strip()}\n```\n\n"
    return (
        f"{shown}The code comes with the weights; read it before you run it. With the project that made it:\n\n"
        f'```python\nfrom utils.publish.hub import pull\n\nrun = pull("{repo_id}")'
        "  # then: python -m utils generate PATH\n```"
    )


def _data(recipe: Mapping[str, Any]) -> str:
    name = _dataset(recipe)
    source = recipe.get("rows") or recipe.get("data") or recipe.get("corpus") or {}
    shares = source.get("splits") if isinstance(source, Mapping) else None
    told = f"`{name}`" if name else "Not stated."
    return told + (f", split into {_shown(shares)} for train, validation and test." if shares else "")


def _dataset(recipe: Mapping[str, Any]) -> str:
    """The name of the data in a recipe; of a local file its name alone, not where it lay."""
    rows, data, corpus = (recipe.get(name) for name in ("rows", "data", "corpus"))
    name = (
        (rows or {}).get("source")
        or (data or {}).get("corpus")
        or ((corpus or {}).get("source") if isinstance(corpus, Mapping) else corpus)
    )
    name = str(name or recipe.get("name") or "unknown")
    return name if name.startswith("hf:") and not name.startswith(("hf:/", "hf:.", "hf:~")) else Path(name).name


def _metrics(metadata: Mapping[str, Any]) -> str:
    metrics = metadata.get("metrics") or {}
    if not metrics:
        return "None were measured."
    rows = [f"| {name} | {_interval(value)} |" for name, value in metrics.items()]
    told = f"Of step {metadata['step']:,}, the best checkpoint; loss in nats."
    given = any(isinstance(value, Mapping) for value in metrics.values())
    told += " In brackets: intervals, as the run measured them." if given else " No intervals were measured."
    return "\n".join([told, "", "| metric | value |", "| --- | --- |", *rows])


def _interval(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{value['value']:.4g} [{value['low']:.4g}, {value['high']:.4g}]"
    return f"{value:.4g}"


def _formats(metadata: Mapping[str, Any]) -> str:
    rows = ["| format | files | check | largest difference |", "| --- | --- | --- | --- |"]
    for name, one in metadata.get("formats", {}).items():
        files = ", ".join(f"`{file}`" for file in one.get("files", ()))
        difference = one.get("max_difference")
        shown = "" if difference is None else f"{difference:.2g}"
        rows.append(f"| {name} | {files} | {one.get('status', 'not checked')} | {shown} |")
    told = (
        "Each was compared with the trained model in a process of its own. `metadata.json` lists every file's sha256."
    )
    return f"{told}\n\n" + "\n".join(rows) if len(rows) > 2 else "`metadata.json` lists every file's sha256."


def _environment(metadata: Mapping[str, Any]) -> str:
    found = ", ".join(f"{name} {version}" for name, version in (metadata.get("environment") or {}).items())
    git = metadata.get("git") or {}
    commit = (
        f" Code: commit {git['commit'][:12]}{' with changes' if git.get('dirty') else ''}." if git.get("commit") else ""
    )
    return f"{found or 'Not stated'}.{commit}"


def _recipe(folder: Path) -> dict[str, Any]:
    path = folder / "run" / "config.yaml"
    return yaml.safe_load(_text(path)) or {} if path.is_file() else {}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _shown(values: Any) -> str:
    values = list(values.values()) if isinstance(values, Mapping) else list(values)
    return ", ".join(f"{value:g}" for value in values)
