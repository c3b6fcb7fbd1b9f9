"""`Account`: who is logged in to the Hub, and what they may write to.

The token comes from the environment, Colab's secrets, or a login of the client's own (`hf auth login`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.core.notebook import secret
from utils.core.redact import keep_secret
from utils.publish.errors import HubError, NetworkDown, NoRight, NoToken, NotYours, asked, client

WRITERS = (
    "admin",
    "write",
    "contributor",
)  # roles in an organisation; https://huggingface.co/docs/hub/organizations-security


def tell_tokens() -> str | None:
    """Have every token of the Hub that this machine keeps masked from now on; HF_TOKEN, where it is set.

    Asks no network. Call it before a file that may hold one is read, copied or published.
    """
    try:
        hub = client()
    except HubError:  # so there is no login of its either
        return keep_secret(secret("HF_TOKEN"))
    keep_secret(os.environ.get("HUGGING_FACE_HUB_TOKEN"))
    for token in hub.utils.get_stored_tokens().values():
        keep_secret(token)
    current = Path(hub.constants.HF_TOKEN_PATH)
    keep_secret(current.read_text(encoding="utf-8").strip() if current.is_file() else None)
    return keep_secret(secret("HF_TOKEN"))


def connect() -> Any:
    """The client's `HfApi`, with the token where there is one, for the Hub of HF_ENDPOINT. The tokens are told."""
    hub, named = client(), tell_tokens()
    token = named or keep_secret(asked(hub.get_token, "Reading the token of the client's login"))
    return hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token or False)


def full_id(api: Any, repo_id: str, *, dry_run: bool = False) -> str:
    """A repository's id with its owner: the account of the token, where none is named.

    A dry run without a token, or without a network, leaves it as it is. Raises `HubError` where it is no id.
    """
    if "/" in checked_id(repo_id) or (dry_run and not api.token):
        return repo_id
    try:
        return Account.of(api).full(repo_id)
    except NetworkDown:
        if not dry_run:
            raise
    return repo_id


@dataclass(frozen=True)
class Account:
    name: str
    orgs: dict[str, str]
    """organisation -> role in it; "" where the Hub does not say"""
    reads_only: bool
    """whether the token may write nowhere"""

    @classmethod
    def of(cls, api: Any) -> Account:
        """Raises `NoToken`, and `BadToken` where the Hub does not know it."""
        if not api.token:
            raise NoToken(
                "Publishing needs a token, and there is none: make one with write access at"
                " https://huggingface.co/settings/tokens, and set it as HF_TOKEN in the environment or in Colab's"
                " secrets. A dry run needs none."
            )
        told = asked(lambda: api.whoami(), "Asking the Hub whose token this is")
        role = (told.get("auth") or {}).get("accessToken", {}).get("role", "")
        orgs = {one["name"]: one.get("roleInOrg") or "" for one in told.get("orgs") or ()}
        return cls(told["name"], orgs, role == "read")

    def full(self, repo_id: str) -> str:
        """The id with its owner: this account, where none is named."""
        return repo_id if "/" in repo_id else f"{self.name}/{repo_id}"

    def check(self, repo_id: str, *, exists: bool) -> None:
        """Raise `NoRight` or `NotYours` where it is known that this account may not write to a repository."""
        owner = repo_id.partition("/")[0]
        if self.reads_only:
            raise NoRight(f"The token of {self.name} may only read. Make one with write access, and set HF_TOKEN.")
        if owner == self.name or self.orgs.get(owner) in (*WRITERS, ""):
            return
        mine = f"{self.name}/{repo_id.partition('/')[2]}"
        if owner in self.orgs:
            raise NoRight(
                f"{self.name} has the role {self.orgs[owner]!r} in the organisation {owner}, and writing needs"
                f" {', '.join(WRITERS)}. Ask its admin, or push to {mine}."
            )
        if exists:
            raise NotYours(f"{repo_id} exists and is {owner}'s; {self.name} may not write to it. Push to {mine}.")
        raise NoRight(
            f"{self.name} belongs to no organisation {owner}, so {repo_id} cannot be made. Push to {mine}, or to one"
            f" of: {', '.join(self.orgs) or 'none'}."
        )


def checked_id(repo_id: str) -> str:
    """A repository's id as it is. Raises `HubError` where it is none, such as a path or an address."""
    hub = client()
    try:
        hub.utils.validate_repo_id(repo_id)
    except hub.errors.HFValidationError as error:
        failure = HubError(f"{repo_id!r} is no repository's id: {str(error).rstrip('.')}. Expected owner/name.")
    else:
        return repo_id
    raise failure
