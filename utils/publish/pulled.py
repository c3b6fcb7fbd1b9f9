"""`pull` a published model into a folder like a run's, which `evaluate`, `generate` and `validate` take.

Checksums are compared before anything is used, weights come from safetensors alone, and code from elsewhere stays
untrusted, unless the caller trusts the repository. Leaves out training on: optimiser and generators are not published.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.core.checkpoints import Checkpoints
from utils.core.checksum import sha256_of
from utils.core.folders import written_whole
from utils.core.run import FOLDERS, STAMP, Run
from utils.publish.account import checked_id, connect
from utils.publish.errors import HubError, asked
from utils.publish.folder import METADATA, read_metadata
from utils.publish.outgoing import check_sums
from utils.publish.restored import restore
from utils.publish.settled import settle
from utils.publish.weights import START
from utils.publish.weights import STATE_DICT as PICKLED

log = logging.getLogger(__name__)
TOKENIZER = (
    "tokenizer*.json",
    "*.model",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
RUN = ("run/config.yaml", f"run/{STAMP}", "run/metrics.jsonl", "run/figures/*.png", START)
WANTED = (METADATA, "config.json", "generation_config.json", "tokenizer/*", *TOKENIZER, *WEIGHTS, *RUN)
PLAIN = (".json", ".txt", ".model", ".jinja")
NAME = re.compile(r"[\w][\w.-]*")
CLASSES = "classes.json"  # beside a run's tokenizer


def pull(repo_id: str, *, revision: str = "main", root: str | Path = "runs", trust: bool = False) -> Run:
    """The model of a repository at a branch, tag or commit, as a run under `root`; the same folder when pulled again.

    Its stamp says where it is from. `trust` allows pickled weights where there are no others, and leaves settings that
    let code run as they are; elsewhere they are switched off. Raises `HubError`.
    """
    checked_id(repo_id)
    api = connect()
    what = f"Pulling {repo_id} at {revision}"
    info = asked(lambda: api.repo_info(repo_id, revision=revision), what, repo_id)
    names = {one.rfilename for one in info.siblings or ()}
    if METADATA not in names or not names & {"run/config.yaml"}:
        raise HubError(
            f"{repo_id} was not published from a run of this project: it has no {METADATA} and run/config.yaml. As a"
            f" model's source, name it hf:{repo_id}."
        )
    wanted = [*WANTED, PICKLED] if trust and not names & set(WEIGHTS) else list(WANTED)
    folder = Path(
        asked(lambda: api.snapshot_download(repo_id, revision=info.sha, allow_patterns=wanted), what, repo_id)
    )
    metadata = read_metadata(folder)
    here = _checked(folder, metadata, wanted, f"{repo_id} at {info.sha[:7]}")
    stamp = _stamp(folder, repo_id, info.sha, revision, trust=trust)
    final = Path(root).expanduser().resolve() / f"{stamp['name']}-{stamp['run_id']}"
    if final.is_dir():
        return _there(final, info.sha)
    with written_whole(final) as writing:
        for name in FOLDERS:
            (writing / name).mkdir()
        _place(folder, here, metadata, writing)
        stamp["pulled"]["changed"] = settle(writing, folder, metadata, here, final, trust=trust)
        restore(writing, folder, metadata, here, repo_id, trust=trust)
        (writing / "RETENTION.txt").write_text(_RETENTION.format(repo=repo_id, commit=info.sha), encoding="utf-8")
        (writing / STAMP).write_text(json.dumps(stamp, indent=2, ensure_ascii=False), encoding="utf-8")
    log.info("%s at %s is in %s.", repo_id, info.sha[:7], final)
    return Run.open(final)


def _checked(folder: Path, metadata: Mapping[str, Any], wanted: list[str], where: str) -> list[str]:
    """The names of the files that came, each as metadata.json says. Whatever else lies in the cache is passed over."""
    from fnmatch import fnmatch

    listed = metadata.get("files") or {}
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    def wants(name: str) -> bool:
        return name != METADATA and any(fnmatch(name, one) for one in wanted)

    here = list(filter(wants, found))
    missing = sorted(set(filter(wants, listed)) - set(here))
    if missing:
        raise HubError(f"{where} lists files that it has not: {', '.join(missing[:8])}. Pull it again.")
    check_sums({name: sha256_of(folder / name) for name in here}, listed, where)
    return here


def _stamp(folder: Path, repo_id: str, commit: str, revision: str, *, trust: bool) -> dict[str, Any]:
    """The run's stamp, with an id of its own and the published run as its parent."""
    try:
        stamp = json.loads((folder / "run" / STAMP).read_text(encoding="utf-8"))
        ids = (stamp["name"], stamp["run_id"])
        stamp["created"], stamp["identity"], stamp["sessions"]
    except (OSError, ValueError, KeyError, TypeError):
        failure = HubError(f"{repo_id}: run/{STAMP} is missing or is no stamp of a run; it cannot be pulled.")
    else:
        if not all(isinstance(one, str) and NAME.fullmatch(one) for one in ids):
            raise HubError(f"{repo_id}: its run's name and id {ids!r} would make no folder; it cannot be pulled.")
        own = f"{ids[1]}-{commit[:7]}{'-trusted' if trust else ''}"
        source = {"repo_id": repo_id, "commit": commit, "revision": revision, "trusted": trust}
        return {**stamp, "run_id": own, "parent_id": ids[1], "pulled": source}
    raise failure


def _there(final: Path, commit: str) -> Run:
    """What an earlier pull left, if it is sound."""
    run = Run.open(final)
    checkpoints = Checkpoints(final / "checkpoints")
    if run.stamp.get("pulled", {}).get("commit") != commit or not any(map(checkpoints.sound, checkpoints.all())):
        raise HubError(f"{final} is damaged, or not of this commit; remove it, and pull again.")
    return run


def _place(folder: Path, here: list[str], metadata: Mapping[str, Any], writing: Path) -> None:
    """Copy what belongs to a run to where a run has it."""
    for name in here:
        first, _, rest = name.partition("/")
        if first == "tokenizer" and not name.endswith(PLAIN):
            continue  # a folder that a recipe can name as a model's source gets no code
        if name == START:
            continue
        if first == "run" or (first == "tokenizer" and rest):
            target = writing / (rest if first == "run" else name)
        elif name == "config.json" and metadata["loader"] == "ours":  # `models.published` builds the model from it
            target = writing / "source" / name
        elif name.startswith(("model", "config", "generation_config")) or name == PICKLED:
            continue
        else:
            target = writing / "tokenizer" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, target)
    if metadata.get("classes") and not (writing / "tokenizer" / CLASSES).exists():
        (writing / "tokenizer").mkdir(exist_ok=True)
        (writing / "tokenizer" / CLASSES).write_text(json.dumps(metadata["classes"]), encoding="utf-8")


_RETENTION = """\
Pulled from {repo}, commit {commit}. Nothing here is deleted by the project; the folder stays until you remove it, and
can be pulled again while the repository has that commit.
"""
