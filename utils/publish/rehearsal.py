"""`rehearse`: what a push would do, as far as this account, or nobody, can see; nothing is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from utils.publish import versions
from utils.publish.account import Account
from utils.publish.errors import HubError, NetworkDown
from utils.publish.outgoing import Change, Outgoing, compare
from utils.publish.pushed import Push, Pushed
from utils.publish.remote import Remote, look, url
from utils.publish.tags import Weighty, check_tag, commit_of, version

UNSEEN = "No token is set, so a private repository would not be seen."


def rehearse(api: Any, push: Push, files: list[Outgoing], weighty: Weighty, stale: Any) -> Pushed:
    """Raises what the push itself would raise before it sends anything, but for the want of a token or a network."""
    notes = [] if api.token else [UNSEEN]
    if "/" not in push.repo_id:
        notes.append(f"Nor is its owner known: a push names it OWNER/{push.repo_id}, in its card too.")
    try:
        account = Account.of(api) if api.token else None
        push = replace(push, repo_id=account.full(push.repo_id)) if account else push
        remote = look(api, push) if "/" in push.repo_id else None
    except NetworkDown as error:
        told = [Change(one.path, one.bytes, "unknown") for one in files]
        return _would(api, push, "", (), told, [str(error), *notes])
    if account:
        account.check(push.repo_id, exists=remote is not None)
    agree(push, remote)
    if remote is None:
        made = "private" if push.private else "public" if push.private is False else "new"
        changes, head, tag = compare(files, {}), "", push.tag or versions.FIRST
        notes.insert(0, f"The {made} repository would be made.")
    else:
        changes, head = compare(files, remote.files, stale(api, remote)), remote.head
        check_tag(push, remote, changes)
        tag = push.tag or version(api, push, files, commit_of(remote, changes), remote, weighty)
        notes = notes if head else [f"The branch {push.revision} would be made, from main.", *notes]
    return _would(api, push, head, tuple(dict.fromkeys((tag, *push.own_tags))), changes, notes)


def _would(api: Any, push: Push, head: str, tags: tuple[str, ...], changes: list[Change], notes: list[str]) -> Pushed:
    return Pushed(push.repo_id, url(api, push), push.revision, head, False, tags, changes, True, " ".join(notes))


def agree(push: Push, remote: Remote | None) -> None:
    """Raise `HubError` where the repository is not as private as was asked."""
    if remote is not None and push.private is not None and remote.private != push.private:
        raise HubError(
            f"{push.repo_id} exists and is {'private' if remote.private else 'public'}, and private={push.private} was"
            " asked for. Leave `private` out, or change it on the repository's settings page first. Nothing was sent."
        )
