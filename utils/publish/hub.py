"""`push` an export folder to the Hugging Face Hub, with its model card. `pull` (in `publish.pulled`) is the way back.

    push(run, "ada/shakespeare", dry_run=True)    # what would go; needs no token
    push(run, "ada/shakespeare", private=True)    # one commit, tagged v0.1.0 and with the run's id
    run = pull("ada/shakespeare", revision="v0.1.0")

Token: HF_TOKEN in the environment or Colab's secrets, or `hf auth login`. Nothing is written into the export folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from utils.core.run import STAMP, Run
from utils.publish.account import connect, full_id
from utils.publish.card import curves, model_card
from utils.publish.errors import HubError
from utils.publish.folder import METADATA, verify
from utils.publish.outgoing import Outgoing
from utils.publish.pulled import pull
from utils.publish.pushed import Push, Pushed, again
from utils.publish.remote import listed
from utils.publish.sending import send

__all__ = ["Pushed", "pull", "push"]
CARD, CURVES = "README.md", "training_curves.png"


def push(
    run_or_folder: Run | str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str = "main",
    tag: str | None = None,
    dry_run: bool = False,
    message: str | None = None,
) -> Pushed:
    """Publish a run's export folder in a repository of a user or an organisation, made where it is missing.

    The folder is checked against its metadata.json, goes up in one commit on the branch `revision` with the model card
    as README.md, and is tagged with the run's id and a version (or `tag`). Raises `ExportError` where the folder is
    not whole, and `HubError`; one that comes after the upload began says how the repository stands.
    """
    api = connect()  # before a file is read: from here on the token is known for what it is
    folder = export_folder(run_or_folder)
    metadata = verify(folder)
    repo_id = full_id(api, repo_id, dry_run=dry_run)
    files = _dressed(folder, metadata, repo_id)
    run_id = (metadata.get("run") or {}).get("id", "")
    asked_for = Push(
        repo_id, "model", private, revision, tag, (run_id,) if run_id else (),
        message or f"{metadata['name']}, step {metadata['step']} of run {run_id}",
        again=again("push", folder, repo_id, private=private, revision=revision, tag=tag),
    )  # fmt: skip
    ours = {one.path for one in files}
    return send(
        api, asked_for, files, dry_run=dry_run,
        weighty=lambda path: path.endswith(".safetensors"),
        stale=lambda api, remote: listed(api, remote, METADATA, ours),
    )  # fmt: skip


def export_folder(run_or_folder: Run | str | Path) -> Path:
    """The export folder of a run, of a run's folder, or itself. Raises `HubError` where nothing is exported."""
    path = run_or_folder.path if isinstance(run_or_folder, Run) else Path(run_or_folder).expanduser().resolve()
    folder = path / "export" if (path / STAMP).is_file() else path
    if not (folder / METADATA).is_file():
        raise HubError(f"{folder} holds no export ({METADATA} is missing); export the run first.")
    return folder


def _dressed(folder: Path, metadata: dict[str, Any], repo_id: str) -> list[Outgoing]:
    """The folder's files with the card and the curves in place, and a metadata.json that says so."""
    files = {name: Outgoing.read(name, folder / name) for name in metadata["files"]}
    picture = curves(folder)
    if picture is not None:
        files[CURVES] = Outgoing.read(CURVES, picture)
    card = model_card(folder, metadata, repo_id, picture=CURVES if picture is not None else "")
    files[CARD] = Outgoing.read(CARD, card.encode())
    listed = {name: {"sha256": one.sha256, "bytes": one.bytes} for name, one in sorted(files.items())}
    text = json.dumps({**metadata, "files": listed}, indent=2, ensure_ascii=False) + "\n"
    return [*files.values(), Outgoing.read(METADATA, text.encode())]
