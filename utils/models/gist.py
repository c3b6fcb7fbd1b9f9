"""`fetch`: the code and config of a GitHub Gist, as a `Source`. Nothing of it is executed.

As the REST API gives it (https://docs.github.com/rest/gists/gists). Leaves out files that are neither Python nor JSON.
"""

from __future__ import annotations

import re
from typing import Any

from utils.models import github
from utils.models.exported import read_config, read_json
from utils.models.found import Source, SourceError

MAIN = ("model.py", "custom_transformer.py")
SUFFIXES = (".py", ".json")
ID = re.compile(r"\d{1,10}|[0-9a-f]{20}|[0-9a-f]{32}", re.IGNORECASE)
REVISION = re.compile(r"[0-9a-f]{7,40}", re.IGNORECASE)


def parse(text: str) -> tuple[str, str] | None:
    """(id, revision or "") of "gist:ID", a gist's URL, or a bare id of 20 or 32 hex digits; None for anything else."""
    text = text.strip()
    url = re.match(r"(?:https?://)?gist\.github(?:usercontent)?\.com/(?P<path>[^?#]+)", text)
    if url is None:
        bare = text.removeprefix("gist:").strip()
        if text.startswith("gist:") and "github" in bare:
            return parse(bare)
        return (bare.lower(), "") if text.startswith("gist:") or (ID.fullmatch(text) and len(text) >= 20) else None
    parts = url["path"].removesuffix(".git").strip("/").split("/")
    known = [index for index, part in enumerate(parts[:2]) if ID.fullmatch(part)]
    if not known:
        raise SourceError(f"{text} has no gist id; expected https://gist.github.com/OWNER/ID.")
    after = [part for part in parts[known[-1] + 1 :] if part != "raw"]
    return parts[known[-1]].lower(), after[0] if after and REVISION.fullmatch(after[0]) else ""


def fetch(gist: str, revision: str = "") -> Source:
    """The gist of that id, at `revision` where one is given, else at its newest."""
    if not ID.fullmatch(gist):
        raise SourceError(
            f"{gist!r} is not a gist id; expected the 20 or 32 hex digits at the end of a gist's address."
        )
    if revision and not REVISION.fullmatch(revision):
        raise SourceError(f"{revision!r} is not a revision of a gist; expected the 40 hex digits its history shows.")
    name = f"gist:{gist}"
    what = f"{name} at revision {revision}" if revision else name
    text = github.get(f"{github.api()}/gists/{gist}" + (f"/{revision}" if revision else ""), what)
    answer = read_json(text, f"GitHub's answer for {what}")
    entries = _entries(answer, what)
    main = next((file for file in MAIN if file in entries), "")
    if not main:
        there = ", ".join(answer["files"]) or "no files"
        raise SourceError(f"{what} holds no {' or '.join(MAIN)}; it has {there}.")
    if sum(entry.get("size") or 0 for entry in entries.values()) > github.MAX_BYTES:
        raise SourceError(f"{what} holds more than {github.MAX_BYTES // 10**6} MB of code, which is refused.")
    files = {}
    for file in sorted(entries, key=lambda file: (file != main, file)):
        content = entries[file].get("content")
        if entries[file].get("truncated") or not isinstance(content, str):
            content = github.get(str(entries[file].get("raw_url")), f"{file} of {what}")
        files[file] = content
    config = read_config(files["config.json"], f"config.json of {what}") if "config.json" in files else {}
    return Source(name, "gist", _facts(answer, revision), files, config)


def _entries(answer: dict[str, Any], what: str) -> dict[str, dict[str, Any]]:
    """File name -> the API's entry, of the Python and JSON files."""
    files = answer.get("files")
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise SourceError(f'GitHub\'s answer for {what} has no "files"; is GITHUB_API_URL that of its API?')
    for file in files:
        if "/" in file or "\\" in file or "\0" in file or file in ("", ".", ".."):
            raise SourceError(f"{what} has a file named {file!r}, which is no plain name; it is refused.")
    if answer.get("truncated"):
        raise SourceError(
            f"{what} has more files than GitHub lists ({len(files)}); put the model into one of fewer files."
        )
    return {file: entry for file, entry in files.items() if file.endswith(SUFFIXES)}


def _facts(answer: dict[str, Any], revision: str) -> dict[str, str]:
    history = answer.get("history")
    newest = history[0].get("version") if isinstance(history, list) and history else None
    newest = newest if isinstance(newest, str) else ""
    owner = answer.get("owner")
    facts = {
        "owner": owner.get("login") if isinstance(owner, dict) else None,
        "revision": newest if newest.startswith(revision) else revision,
        "url": answer.get("html_url"),
        "description": answer.get("description"),
    }
    return {key: value for key, value in facts.items() if isinstance(value, str) and value}
