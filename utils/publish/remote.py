"""`Remote`: a repository of the Hub as it stands, and what an earlier push of ours listed in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from utils.publish.errors import RepositoryMissing, RevisionMissing, asked
from utils.publish.pushed import Kind, Push

log = logging.getLogger(__name__)
GIT = ".gitattributes"  # which the Hub itself puts into every repository


@dataclass(frozen=True)
class Remote:
    """A repository as it stands: its branch's commit and files, and its tags."""

    repo_id: str
    kind: Kind
    private: bool
    head: str
    """of the branch; "" where it is not there yet"""
    at: str
    """the commit whose files these are: of main, where the branch is not there yet"""
    files: Mapping[str, Any]
    """path -> `RepoFile`"""
    tags: Mapping[str, str]
    """name -> commit"""


def look(api: Any, push: Push) -> Remote | None:
    """The repository as this account sees it; None where there is none. Raises `RevisionMissing` for a tag."""
    what = f"Looking at {push.repo_id}"
    where = {"repo_type": push.kind}
    try:
        info = asked(lambda: api.repo_info(push.repo_id, **where), what, push.repo_id)
    except RepositoryMissing:
        return None
    refs = asked(lambda: api.list_repo_refs(push.repo_id, **where), what, push.repo_id)
    branches = {one.name: one.target_commit for one in refs.branches}
    tags = {one.name: one.target_commit for one in refs.tags}
    head = branches.get(push.revision, "")
    if not head and push.revision in tags:
        raise RevisionMissing(f"{push.revision} is a tag of {push.repo_id}; a push goes to a branch, such as main.")
    at = head or info.sha
    files = asked(lambda: files_at(api, push, at), what, push.repo_id)
    return Remote(push.repo_id, push.kind, bool(info.private), head, at, files, tags)


def files_at(api: Any, push: Push, revision: str) -> dict[str, Any]:
    """The files of the repository at a revision: path -> `RepoFile`."""
    tree = api.list_repo_tree(push.repo_id, recursive=True, revision=revision, repo_type=push.kind)
    return {one.path: one for one in tree if hasattr(one, "blob_id")}


def listed(api: Any, remote: Remote, name: str, but: Collection[str]) -> list[str]:
    """Files that are there and that an earlier push listed in its file `name`, without those in `but`.

    None, with a warning, where the repository's file of that name is no such list: then it is another's.
    """
    if name not in remote.files or not remote.files.keys() - set(but) - {GIT}:
        return []
    kind = {"repo_type": remote.kind}
    read = partial(api.hf_hub_download, remote.repo_id, name, revision=remote.at, **kind)
    path = asked(read, f"Reading {name} of {remote.repo_id}", remote.repo_id)
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:  # of JSON, or of UTF-8
        told = None
    files = told.get("files") if isinstance(told, dict) else None
    if not isinstance(files, dict):
        log.warning("%s of %s lists no files of an earlier push; nothing is removed there.", name, remote.repo_id)
        return []
    return [path for path in files if path in remote.files and path not in but]


def url(api: Any, push: Push) -> str:
    """The repository's page."""
    return f"{api.endpoint}/{'datasets/' if push.kind == 'dataset' else ''}{push.repo_id}"
