"""`Copy`: what of a repository on the Hugging Face Hub is here, in the client's cache, pinned to a commit.

Leaves out what its files mean (`models.huggingface`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.core.notebook import secret
from utils.models.found import SourceError, one_line


@dataclass(frozen=True)
class Copy:
    """The folder of one commit's files, the names of all that the repository has, and what is known of it."""

    folder: Path
    names: list[str]
    facts: dict[str, str]


def look(model: str, revision: str = "") -> Copy:
    """The repository at `revision` (a branch, a tag or a commit), with its config and its top-level code downloaded."""
    client = _client()
    errors = client.errors
    what = f"hf:{model}" + (f" at revision {revision}" if revision else "")
    api = client.HfApi(token=secret("HF_TOKEN"))
    try:
        info = api.model_info(model, revision=revision or None, timeout=15)
        names = [sibling.rfilename for sibling in info.siblings or ()]
        owner = (info.id or model).rpartition("/")[0]
        facts = {"owner": owner or "huggingface", "revision": info.sha}
        facts["url"] = f"{api.endpoint}/{model}/tree/{info.sha}"
        folder = None
        if "config.json" in names:
            api.hf_hub_download(model, "config.json", revision=revision or None)  # lets the cache know the revision
            wanted = [name for name in names if name == "config.json" or (name.endswith(".py") and "/" not in name)]
            folder = [Path(api.hf_hub_download(model, name, revision=info.sha)).parent for name in wanted][0]
    except errors.GatedRepoError:
        raise SourceError(f"{what} asks for an agreement: accept it on its page, and set HF_TOKEN.") from None
    except errors.RevisionNotFoundError:
        raise SourceError(f"{what} was not found: the repository has no such revision.") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise SourceError(
            f"{what} was not found on the Hugging Face Hub: check the name (a folder is written ./name); a private "
            "model needs HF_TOKEN."
        ) from None
    except (OSError, errors.HfHubHTTPError.__bases__[0]) as error:
        return _cached(model, revision, what, error)
    if folder is None:
        raise SourceError(f"{what} has no config.json; it has {', '.join(names[:20]) or 'no files'}.")
    return Copy(folder, names, facts)


def _cached(model: str, revision: str, what: str, error: Exception) -> Copy:
    """The copy that an earlier download left, for where the Hub gives no answer."""
    client = _client()
    try:
        path = client.hf_hub_download(model, "config.json", revision=revision or None, local_files_only=True)
    except (OSError, ValueError, client.errors.EntryNotFoundError):
        raise SourceError(
            f"{what}: no answer from the Hugging Face Hub ({one_line(error)}), and no copy in the "
            "cache; is there a network?"
        ) from None
    folder = Path(path).parent
    facts = {"owner": model.rpartition("/")[0] or "huggingface", "revision": folder.name}
    facts["hub"] = "gave no answer; this is the copy in the cache"
    return Copy(folder, os.listdir(folder), facts)


def fetch(model: str, name: str, revision: str) -> Path:
    """One more file of the repository at a commit."""
    return Path(_client().HfApi(token=secret("HF_TOKEN")).hf_hub_download(model, name, revision=revision))


def _client() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise SourceError(f"Hugging Face models need transformers ({error}): pip install transformers.") from None
    return huggingface_hub
