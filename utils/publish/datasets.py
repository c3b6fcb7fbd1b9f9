"""`push_dataset`: a file or a folder of data, such as the VAE's corpus, as a dataset repository of the Hub.

Each push lists its files in `.published.json` (`datasets` reads no file whose name begins with a dot), and what an
older one listed and this one has not is removed, so that no rows mix in. Leaves out models (`publish.hub`).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from utils.data.files import READERS
from utils.publish.account import connect, full_id
from utils.publish.errors import HubError, client
from utils.publish.outgoing import Outgoing
from utils.publish.pushed import Push, Pushed, again
from utils.publish.remote import Remote, listed
from utils.publish.sending import send

log = logging.getLogger(__name__)
CARD, LIST = "README.md", ".published.json"
DATA = (*READERS, ".npz", ".arrow")
CORPUS = "manifest.json"  # of the VAE's corpus


def push_dataset(
    folder_or_file: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str = "main",
    tag: str | None = None,
    license: str = "",
    dry_run: bool = False,
    message: str | None = None,
) -> Pushed:
    """Publish data in one commit, with a card where they bring no README.md; tagged by version as a model is.

    `license` goes into that card: an SPDX identifier; empty: not stated. Raises `HubError`.
    """
    api = connect()  # before a file is read: from here on the token is known for what it is
    path = Path(folder_or_file).expanduser().resolve()
    repo_id = full_id(api, repo_id, dry_run=dry_run)
    files = {name: Outgoing.read(name, source) for name, source in _found(path).items()}
    if CARD not in files:
        files[CARD] = Outgoing.read(CARD, dataset_card(path, list(files.values()), repo_id, license).encode())
    facts = {name: {"sha256": one.sha256, "bytes": one.bytes} for name, one in sorted(files.items())}
    files[LIST] = Outgoing.read(LIST, (json.dumps({"files": facts}, indent=2) + "\n").encode())
    push = Push(
        repo_id, "dataset", private, revision, tag, message=message or f"Data of {path.name}",
        again=again("push-dataset", path, repo_id, private=private, revision=revision, tag=tag),
    )  # fmt: skip

    def stale(api: Any, remote: Remote) -> list[str]:
        old = listed(api, remote, LIST, files)
        foreign = [name for name in remote.files if name.endswith(DATA) and name not in files and name not in old]
        if foreign:
            log.warning("Data files of %s that no push listed stay there: %s.", repo_id, ", ".join(sorted(foreign)[:8]))
        return old

    sent = list(files.values())
    return send(api, push, sent, weighty=lambda name: name.endswith(DATA), stale=stale, dry_run=dry_run)


def _found(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise HubError(f"No data at {path}; expected a file or a folder.")
    inside = [(file.relative_to(path), file) for file in sorted(path.rglob("*")) if file.is_file()]
    files = {name.as_posix(): file for name, file in inside if not any(part.startswith(".") for part in name.parts)}
    if not any(name.endswith(DATA) for name in files):
        raise HubError(f"{path} holds no data; expected files of {', '.join(DATA)}.")
    return files


def dataset_card(path: Path, files: list[Outgoing], repo_id: str, license: str = "") -> str:
    """What the data are, as far as the files tell, and how to load them."""
    front = client().DatasetCardData(license=license.lower() or None, pretty_name=path.stem, tags=["run-all"])
    rows = "\n".join(f"| `{one.path}` | {one.bytes:,} | `{one.sha256[:12]}` |" for one in files)
    licence = f"License: {license}." if license else "No license is stated: ask its owner before you use it."
    told, loading = "", f'from datasets import load_dataset\n\nrows = load_dataset("{repo_id}")'
    manifest = path / CORPUS
    if manifest.is_file() and any(one.path.endswith(".npz") for one in files):
        content = json.loads(manifest.read_text(encoding="utf-8"))
        splits = ", ".join(f"{name} {one['grids']:,}" for name, one in content.get("splits", {}).items())
        told = f"ARC grids for the VAE: {splits}. `{CORPUS}` says how they were made.\n\n"
        loading = (
            "from huggingface_hub import snapshot_download\n\n"
            f'folder = snapshot_download("{repo_id}", repo_type="dataset")  # then, in a recipe: corpus.source=FOLDER'
        )
    return (
        f"---\n{front.to_yaml().strip()}\n---\n\n# {path.stem}\n\n{told}{licence}\n\n"
        f"```python\n{loading}\n```\n\n| file | bytes | sha256 |\n| --- | --- | --- |\n{rows}\n"
    )
