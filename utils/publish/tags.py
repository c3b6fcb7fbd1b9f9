"""Tags of a push: the version of its commit, or the tag that was asked for, and the experiment's own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from utils.publish import versions
from utils.publish.errors import HubError, asked
from utils.publish.outgoing import Change, Outgoing
from utils.publish.pushed import Push
from utils.publish.remote import Remote, files_at, look

log = logging.getLogger(__name__)
Weighty = Callable[[str], bool]


def check_tag(push: Push, remote: Remote, changes: list[Change]) -> None:
    """Raise `HubError`, before anything is sent, where the tag that is asked for is on another commit."""
    there = remote.tags.get(push.tag or "")
    if there is not None and there != commit_of(remote, changes):
        raise HubError(
            f"The tag {push.tag} of {push.repo_id} is on another commit ({there[:7]}), and stays there. Give another"
            " tag, or none for the next version. Nothing was sent."
        )


def commit_of(remote: Remote, changes: list[Change]) -> str:
    """The commit that the branch has after a push; "" for one that is yet to be made."""
    return remote.at if all(one.change == "same" for one in changes) else ""


def place(api: Any, push: Push, files: list[Outgoing], head: str, weighty: Weighty) -> tuple[str, ...]:
    """The tags of the commit, made where they are missing; the experiment's own is moved."""
    what = f"Tagging {push.repo_id}"
    remote = asked(lambda: look(api, push), what, push.repo_id)
    wanted = push.tag or version(api, push, files, head, remote, weighty)
    if push.tag and remote.tags.get(push.tag, head) != head:  # since `check_tag`
        raise HubError(f"The tag {push.tag} of {push.repo_id} was put on another commit ({remote.tags[push.tag][:7]}).")
    tags = tuple(dict.fromkeys((wanted, *push.own_tags)))
    for tag in tags:
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
    return tags


def version(api: Any, push: Push, files: list[Outgoing], head: str, remote: Remote, weighty: Weighty) -> str:
    """The version that the commit has, or the one that is due; `head` is "" for a commit that is not there yet."""
    newest = versions.latest(remote.tags)
    own = versions.latest(tag for tag, commit in remote.tags.items() if commit == head)
    if own is not None:
        return own
    if newest is None:
        return versions.FIRST
    old = asked(lambda: files_at(api, push, remote.tags[newest]), f"Looking at {push.repo_id}", push.repo_id)
    now = [one for one in files if weighty(one.path)]
    other = any(one.against(old.get(one.path)) != "same" for one in now)
    gone = {path for path in old if weighty(path)} - {one.path for one in now}
    return versions.following(newest, minor=other or bool(gone))
