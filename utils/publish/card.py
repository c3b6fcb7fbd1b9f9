"""The model card: README.md of a published model, made from its metadata.json and what its run left.

It says what is known and names what is not. Equal folders make equal cards. Leaves out what the Hub reads of it
(`publish.frontmatter`) and the dataset card (`publish.datasets`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from utils.core.plots import plot_metrics
from utils.core.run import STAMP, Run
from utils.publish import provenance
from utils.publish.frontmatter import front_matter
from utils.publish.measured import measured

WHAT = {  # by family or kind, the family's first
    "PPO": "A policy that writes programs which solve ARC tasks, a language model trained by PPO",
    "causal_lm": "A language model that continues text",
    "masked_lm": "A language model that fills in masked words",
    "seq2seq": "An encoder-decoder that turns one text into another",
    "classifier": "A classifier of text",
    "vae": "A variational autoencoder of ARC grids",
}
USES = {
    "PPO": "writing programs for ARC tasks of the kind it was trained on; run what it writes in a sandbox alone",
    "causal_lm": "continuing text of the kind it was trained on",
    "masked_lm": "filling in masked words, and embeddings, of text of the kind it was trained on",
    "seq2seq": "texts and targets of the kind it was trained on",
    "classifier": "telling its classes apart in texts of the kind it was trained on",
    "vae": "encoding, sampling and completing ARC grids",
}
COMMANDS = {"PPO": "ppo evaluate", "VAE": "vae sample", "causal_lm": "generate", "seq2seq": "generate"}
HERE = "Path(__file__).resolve().parent"  # how load_example.py finds its folder


def model_card(folder: Path, metadata: Mapping[str, Any], repo_id: str, *, picture: str = "") -> str:
    """The card of an export folder as it is published in `repo_id`; `picture` is the name of its training curves."""
    recipe = _recipe(folder)
    sections = [
        f"# {metadata['name']}\n\n{_summary(metadata)}",
        f"## Intended use and limits\n\n{_limits(metadata, recipe)}",
        f"## Load it\n\n{_loading(folder, metadata, repo_id)}",
        f"## Data\n\n{provenance.data(recipe)}",
        f"## Metrics\n\n{measured(metadata)}",
        f"## Training\n\n![Training curves]({picture})" if picture else "",
        f"## Files\n\n{_formats(metadata)}",
        f"## Settings\n\n```yaml\n{_text(folder / 'run' / 'config.yaml').strip()}\n```" if recipe else "",
        f"## Environment\n\n{_environment(metadata)}",
    ]
    return f"---\n{front_matter(metadata, recipe)}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


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


def _summary(metadata: Mapping[str, Any]) -> str:
    run, origin = metadata.get("run") or {}, metadata.get("origin", "")
    told = f"{_of(WHAT, metadata, metadata['kind'])}: the weights of step {metadata['step']:,}"
    told += f" of run `{run['id']}`" if run.get("id") else ""
    told += f", trained from `{origin}`" if origin else ""
    note = metadata.get("note", "").strip().rstrip(".")
    told += f". {note}" if note else ""
    classes = metadata.get("classes") or []
    return f"{told}." + (f" Its classes: {', '.join(f'`{one}`' for one in classes)}." if classes else "")


def _limits(metadata: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    kind, limits = metadata["kind"], metadata.get("limits") or {}
    lines = [f"Meant for {_of(USES, metadata, 'what it was trained on')}, for study and experiment."]
    if limits.get("context_length"):
        lines.append(f"It sees at most {limits['context_length']:,} tokens at once; more are refused or cut.")
    if limits.get("vocab_size"):
        lines.append(f"Its tokenizer has {limits['vocab_size']:,} ids{provenance.tokenizer(recipe)}.")
    if metadata.get("metrics"):
        lines.append(
            "The numbers below are of the data's own split; on any other data it may do worse, and was not tried."
        )
    if kind in ("causal_lm", "seq2seq") and metadata.get("family") != "PPO":
        lines.append("What it writes is likely text, not true text, and repeats the faults of its data.")
    if kind == "classifier":
        lines.append("It answers with one of its classes for every text, also where none fits.")
    lines.append("Nothing is known of bias or safety: neither was measured. Do not let it decide about people.")
    licence = metadata.get("license")
    lines.append(f"License: {licence}." if licence else "No license is stated: ask its owner before you use it.")
    return "\n".join(f"- {line}" for line in lines)


def _loading(folder: Path, metadata: Mapping[str, Any], repo_id: str) -> str:
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
        f"  # then: python -m utils {_of(COMMANDS, metadata, 'evaluate')} PATH\n```"
    )


def _formats(metadata: Mapping[str, Any]) -> str:
    sums = "`metadata.json` lists every file's sha256."
    rows = [_format(name, one) for name, one in metadata.get("formats", {}).items()]
    if not rows:
        return sums
    told = "What says pass was compared with the trained model in a process of its own, and is equal within bounds."
    head = ["| format | files | check | largest difference |", "| --- | --- | --- | --- |"]
    return f"{told} {sums}\n\n" + "\n".join([*head, *rows])


def _format(name: str, one: Mapping[str, Any]) -> str:
    """A row of the table: what did not pass says why."""
    files = ", ".join(f"`{file}`" for file in one.get("files", ()))
    status, difference = one.get("status", "not compared"), one.get("max_difference")
    why = "" if status == "pass" else " ".join(str(one.get("told") or "").split()).replace("|", "\\|")
    shown = "" if difference is None else f"{difference:.2g}"
    return f"| {name} | {files} | {status}{': ' * bool(why)}{why} | {shown} |"


def _of(table: Mapping[str, str], metadata: Mapping[str, Any], otherwise: str) -> str:
    """What a table says of the family or, where it does not, of the kind."""
    return table.get(metadata.get("family", ""), table.get(metadata["kind"], otherwise))


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
