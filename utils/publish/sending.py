"""`send` files to a repository of the Hub in one commit, and tag it.

A commit arrives whole or not at all, so a push that is cut leaves the repository at its old revision. What equals the
remote's checksums is not sent, and where nothing differs there is no commit. Leaves out which files (`publish.hub`),
tags (`publish.tags`) and dry runs (`publish.rehearsal`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from utils.publish.account import Account
from utils.publish.errors import HubError, NetworkDown, PushCut, RepositoryMissing, asked, client
from utils.publish.outgoing import Change, Outgoing, compare
from utils.publish.pushed import Push, Pushed, size
from utils.publish.rehearsal import agree, rehearse
from utils.publish.remote import GIT, Remote, look, url
from utils.publish.tags import Weighty, check_tag, place

log = logging.getLogger(__name__)
Stale = Callable[[Any, Remote], Iterable[str]]


def send(
    api: Any, push: Push, files: list[Outgoing], *, weighty: Weighty, stale: Stale, dry_run: bool = False
) -> Pushed:
    """Have the branch hold these files, in one commit; then tag it by version.

    `weighty` says of which paths a change raises the minor version, and `stale` which files of the repository go. What
    can be refused is refused before anything is sent; a later `HubError` says how the repository stands.
    """
    if dry_run:
        return rehearse(api, push, files, weighty, stale)
    account = Account.of(api)
    push = replace(push, repo_id=account.full(push.repo_id))
    remote = look(api, push)
    account.check(push.repo_id, exists=remote is not None)
    agree(push, remote)
    if push.tag and remote is not None:
        check_tag(push, remote, compare(files, remote.files, stale(api, remote)))
    log.info("Pushing %d files, %s, to %s.", len(files), size(sum(one.bytes for one in files)), push.repo_id)
    before, head = remote.head if remote else "", ""
    try:
        head, changes = _commit(api, push, files, remote, stale)
        tags = place(api, push, files, head, weighty)
    except HubError as error:
        kind = PushCut if isinstance(error, NetworkDown) else type(error)
        failure = kind(f"{error} {_standing(api, push, files, before, head)} To try again: {push.again}")
    else:
        return Pushed(push.repo_id, url(api, push), push.revision, head, head != before, tags, changes)
    raise failure


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


def _standing(api: Any, push: Push, files: list[Outgoing], before: str, head: str) -> str:
    """How the repository stands after a push that failed, from a look at it where its commit is not known."""
    if head:
        return f"The files are published as {head[:7]}; what is missing are tags."
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
    if not before and set(remote.files) <= {GIT}:
        return f"Nothing of it was published: {push.repo_id} was made and is empty."
    if any(one.change != "same" for one in compare(files, remote.files)):
        return f"Nothing of it was published: {push.revision} is at {remote.head[:7]}, which is not of this push."
    return f"The files are published as {remote.head[:7]}; what is missing are tags."
