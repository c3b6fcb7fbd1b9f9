"""`send` files to a repository of the Hub in one commit, and tag it; `Pushed` says what became of it.

A commit arrives whole or not at all, so a push that is cut leaves the repository at its old revision. What equals the
remote's checksums is not sent, and where nothing differs there is no commit. Leaves out which files (`publish.hub`).
"""

from __future__ import annotations

import html
import logging
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from utils.publish import versions
from utils.publish.account import Account, checked_id, connect
from utils.publish.errors import (
    HubError,
    NetworkDown,
    PushCut,
    RepositoryMissing,
    RevisionMissing,
    asked,
    client,
)
from utils.publish.outgoing import Change, Outgoing, compare

log = logging.getLogger(__name__)
Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class Push:
    """What is asked of a push, whatever is pushed."""

    repo_id: str
    kind: Kind = "model"
    private: bool | None = None
    """of a repository that is made; None: as the account's or organisation's default"""
    revision: str = "main"
    tag: str | None = None
    """in place of a version"""
    own_tags: tuple[str, ...] = ()
    """further tags, moved to the newest commit: the id of the experiment"""
    message: str = "Update"
    again: str = ""
    """the command that pushes once more"""


def again(command: str, path: Path, repo_id: str, *, private: bool | None, revision: str, tag: str | None) -> str:
    """The command line that pushes once more."""
    options = [] if private is None else ["--private" if private else "--public"]
    options += ["--revision", revision] if revision != "main" else []
    options += ["--tag", tag] if tag else []
    return shlex.join(["python", "-m", "utils", command, str(path), repo_id, *options])


@dataclass(frozen=True)
class Pushed:
    """A push that was done, or what it would do."""

    repo_id: str
    url: str
    revision: str
    commit: str
    """of the branch now; "" where there is none yet"""
    committed: bool
    """False where nothing had changed, and in a dry run"""
    tags: tuple[str, ...]
    files: list[Change]
    dry_run: bool = False
    note: str = ""

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {change}" for change, count in Counter(one.change for one in self.files).items())
        sent = sum(one.bytes for one in self.files if one.change in ("new", "changed", "unknown"))
        head = f"{self.url} at {self.commit[:7]}" if self.commit else self.url
        if self.dry_run:
            told = f"Dry run: {head} would get {_size(sent)} on {self.revision}"
        elif self.committed:
            told = f"Published: {head}, {_size(sent)} sent to {self.revision}"
        else:
            told = f"Nothing changed: {head} has it all, no commit was made"
        tags = f" Tags: {', '.join(self.tags)}." if self.tags else ""
        lines = [f"  {one.change:>8}  {_size(one.bytes):>10}  {one.path}" for one in self.files]
        return "\n".join([f"{told} ({counts}).{tags}{' ' + self.note if self.note else ''}", *lines])

    def _repr_html_(self) -> str:
        head, _, _ = str(self).partition("\n")
        linked = html.escape(head).replace(
            html.escape(self.url), f'<a href="{self.url}">{html.escape(self.url)}</a>', 1
        )
        folders: dict[tuple[str, str], list[Change]] = {}
        for one in self.files:
            top, inside, _ = one.path.partition("/")
            folders.setdefault((one.change, top + inside), []).append(one)
        rows = "".join(
            f"<tr><td>{change}</td><td>{_size(sum(one.bytes for one in inside))}</td>"
            f"<td style='text-align: left'><code>{html.escape(place)}</code>"
            f"{f' {len(inside)} files' if len(inside) > 1 else ''}</td></tr>"
            for (change, place), inside in folders.items()
        )
        return (
            f"<p>{linked}</p><table><tr><th></th><th>size</th><th style='text-align: left'>file</th></tr>{rows}</table>"
        )


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024 or unit == "GiB":
            break
    return f"{count:.1f} {unit}"


@dataclass(frozen=True)
class Remote:
    """A repository as it stands: its branch's commit and files, and its tags."""

    repo_id: str
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
    files = asked(lambda: _files(api, push, at), what, push.repo_id)
    return Remote(push.repo_id, bool(info.private), head, at, files, tags)


def _files(api: Any, push: Push, revision: str) -> dict[str, Any]:
    tree = api.list_repo_tree(push.repo_id, recursive=True, revision=revision, repo_type=push.kind)
    return {one.path: one for one in tree if hasattr(one, "blob_id")}


Stale = Callable[[Any, Remote], Iterable[str]]


def send(
    push: Push, files: list[Outgoing], *, weighty: Callable[[str], bool], stale: Stale, dry_run: bool = False
) -> Pushed:
    """Have the branch hold these files, in one commit; then tag it by version.

    `weighty` says of which paths a change raises the minor version, and `stale` which files of the repository go.
    """
    checked_id(push.repo_id)
    api = connect()
    if dry_run:
        return _rehearse(api, push, files, weighty, stale)
    account = Account.of(api)
    push = _with_owner(push, account)
    remote = look(api, push)
    account.check(push.repo_id, exists=remote is not None)
    _agree(push, remote)
    log.info("Pushing %d files, %s, to %s.", len(files), _size(sum(one.bytes for one in files)), push.repo_id)
    before = remote.head if remote else ""
    try:
        head, changes = _commit(api, push, files, remote, stale)
        tags = _tag(api, push, files, head, weighty)
    except NetworkDown as error:
        failure = PushCut(f"{error} {_standing(api, push, before)} To try again: {push.again}")
    else:
        return Pushed(push.repo_id, _url(api, push), push.revision, head, head != before, tags, changes)
    raise failure


def _with_owner(push: Push, account: Account) -> Push:
    return replace(push, repo_id=account.full(push.repo_id))


def _agree(push: Push, remote: Remote | None) -> None:
    if remote is not None and push.private is not None and remote.private != push.private:
        raise HubError(
            f"{push.repo_id} exists and is {'private' if remote.private else 'public'}, and private={push.private} was"
            " asked for. Leave `private` out, or change it on the repository's settings page first. Nothing was sent."
        )


def _commit(
    api: Any, push: Push, files: list[Outgoing], remote: Remote | None, stale: Stale
) -> tuple[str, list[Change]]:
    """The branch's commit after the push, and what became of each file as it was before."""
    hub, where = client(), {"repo_type": push.kind}
    if remote is None:
        asked(
            lambda: api.create_repo(push.repo_id, private=push.private, exist_ok=True, **where),
            f"Making the repository {push.repo_id}", push.repo_id,
        )  # fmt: skip
    if remote is None or not remote.head:
        asked(
            lambda: push.revision == "main"
            or api.create_branch(push.repo_id, branch=push.revision, exist_ok=True, **where),
            f"Making the branch {push.revision} of {push.repo_id}", push.repo_id,
        )  # fmt: skip
    first: list[list[Change]] = []

    def attempt() -> str:
        """Looks anew each time: a commit whose answer was lost is there, and is not made twice."""
        now = look(api, push)
        if now is None or not now.head:
            raise RepositoryMissing(f"{push.repo_id} has no branch {push.revision}: it was made, and has gone since.")
        gone = set(stale(api, now))
        changes = compare(files, now.files, gone)
        first.append(changes)
        sources = {one.path: one.source for one in files}
        operations: list[Any] = [
            hub.CommitOperationAdd(one.path, sources[one.path]) for one in changes if one.change in ("new", "changed")
        ]
        operations += [hub.CommitOperationDelete(path) for path in sorted(gone)]
        if not operations:
            return now.head
        done = api.create_commit(
            push.repo_id, operations, commit_message=push.message, revision=push.revision, parent_commit=now.head,
            **where,
        )  # fmt: skip
        return done.oid

    # Within an attempt the client itself tries each upload six times, over some 20 seconds.
    head = asked(attempt, f"Pushing to {push.repo_id}", push.repo_id, attempts=3)
    return head, first[0]


def _tag(api: Any, push: Push, files: list[Outgoing], head: str, weighty: Callable[[str], bool]) -> tuple[str, ...]:
    """The tags of the commit, made where they are missing."""
    what = f"Tagging {push.repo_id}"
    remote = asked(lambda: look(api, push), what, push.repo_id)
    wanted = push.tag or _version(api, push, files, head, remote, weighty)
    if push.tag and remote.tags.get(push.tag, head) != head:
        raise HubError(
            f"The tag {push.tag} of {push.repo_id} is on another commit ({remote.tags[push.tag][:7]}), and stays there."
            f" The files are published as {head[:7]}; give it another tag."
        )
    for tag in dict.fromkeys((wanted, *push.own_tags)):
        there = remote.tags.get(tag)
        if there == head:
            continue
        options = {"tag": tag, "repo_type": push.kind}
        if there is not None:
            asked(lambda options=options: api.delete_tag(push.repo_id, **options), what, push.repo_id)
            log.info("The tag %s moves from %s to %s.", tag, there[:7], head[:7])
        asked(
            lambda options=options: api.create_tag(push.repo_id, revision=head, exist_ok=True, **options),
            what, push.repo_id,
        )  # fmt: skip
    return tuple(dict.fromkeys((wanted, *push.own_tags)))


def _version(
    api: Any, push: Push, files: list[Outgoing], head: str, remote: Remote, weighty: Callable[[str], bool]
) -> str:
    """The version that the commit has, or the one that is due."""
    newest = versions.latest(remote.tags)
    own = versions.latest(tag for tag, commit in remote.tags.items() if commit == head)
    if own is not None:
        return own
    if newest is None:
        return versions.FIRST
    old = asked(lambda: _files(api, push, remote.tags[newest]), f"Looking at {push.repo_id}", push.repo_id)
    now = [one for one in files if weighty(one.path)]
    other = any(one.against(old.get(one.path)) != "same" for one in now)
    gone = {path for path in old if weighty(path)} - {one.path for one in now}
    return versions.following(newest, minor=other or bool(gone))


def _rehearse(api: Any, push: Push, files: list[Outgoing], weighty: Callable[[str], bool], stale: Stale) -> Pushed:
    """What a push would do, as far as this account, or nobody, can see."""
    note = "" if api.token else "No token is set, so a private repository would not be seen."
    account = Account.of(api) if api.token else None
    push = _with_owner(push, account) if account else push
    try:
        remote = look(api, push) if "/" in push.repo_id else None
    except NetworkDown as error:
        files_told = [Change(one.path, one.bytes, "unknown") for one in files]
        return Pushed(
            push.repo_id, _url(api, push), push.revision, "", False, (), files_told, True, f"{error} {note}".strip()
        )
    if account:
        account.check(push.repo_id, exists=remote is not None)
    _agree(push, remote)
    if remote is None:
        changes, tag = compare(files, {}), push.tag or versions.FIRST
        made = "private" if push.private else "public" if push.private is False else "new"
        note = f"The {made} repository would be made. {note}".strip()
        head = ""
    else:
        changes, head = compare(files, remote.files, stale(api, remote)), remote.head
        idle = head and all(one.change == "same" for one in changes)
        tag = push.tag or _version(api, push, files, head if idle else "-", remote, weighty)
        note = note if head else f"The branch {push.revision} would be made, from main. {note}".strip()
    tags = tuple(dict.fromkeys((tag, *push.own_tags)))
    return Pushed(push.repo_id, _url(api, push), push.revision, head, False, tags, changes, True, note)


def _standing(api: Any, push: Push, before: str) -> str:
    """How the repository stands after a push that failed, from a look at it where that can be had."""
    unknown = "How it stands cannot be seen now; a commit arrives whole or not at all, and the old revision is kept."
    try:
        remote = look(api, push)
    except HubError:
        return unknown
    if remote is None:
        return "Nothing was published: the repository was not made."
    if not remote.head:
        return f"Nothing was published: {push.repo_id} has no branch {push.revision} yet."
    if before and remote.head == before:
        return f"Nothing of it was published: {push.revision} of {push.repo_id} is at {before[:7]}, as before."
    if not before and set(remote.files) <= {".gitattributes"}:
        return f"Nothing of it was published: {push.repo_id} was made and is empty."
    return f"The files are published as {remote.head[:7]}; what is missing are tags."


def _url(api: Any, push: Push) -> str:
    return f"{api.endpoint}/{'datasets/' if push.kind == 'dataset' else ''}{push.repo_id}"
