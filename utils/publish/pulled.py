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
from typing import TYPE_CHECKING, Any

import yaml

from utils.core.checkpoints import Checkpoints
from utils.core.folders import written_whole
from utils.core.run import FOLDERS, STAMP, Run
from utils.publish.account import checked_id, connect
from utils.publish.errors import HubError, asked
from utils.publish.folder import METADATA, read_metadata
from utils.publish.outgoing import check_sums, sha256_of

if TYPE_CHECKING:
    import torch

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
RUN = ("run/config.yaml", f"run/{STAMP}", "run/metrics.jsonl", "run/figures/*.png")
WANTED = (METADATA, "config.json", "generation_config.json", "tokenizer/*", *TOKENIZER, *WEIGHTS, *RUN)
PICKLED = "state_dict.pt"
PLAIN = (".json", ".txt", ".model", ".jinja")
CODE_HERE = re.compile(r"(file:|[/.~]).*|.*\.py")
NAME = re.compile(r"[\w][\w.-]*")
CLASSES = "classes.json"  # beside a run's tokenizer
TRUST = "trust_code"


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
    state = _weights(folder, metadata, here, repo_id, trust=trust)
    with written_whole(final) as writing:
        for name in FOLDERS:
            (writing / name).mkdir()
        _place(folder, here, metadata, writing)
        changed = _settle(writing / "config.yaml", folder, metadata, writing, final, trust=trust)
        loss = (metadata.get("metrics") or {}).get("validation/loss")
        metric = float(loss) if isinstance(loss, (int, float)) else None
        Checkpoints(writing / "checkpoints").save(int(metadata["step"]), {"model": state}, metric)
        stamp["pulled"]["changed"] = changed
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
        if first == "run" or (first == "tokenizer" and rest):
            target = writing / (rest if first == "run" else name)
        elif name.startswith(("model", "config", "generation_config")) or name == PICKLED:
            continue
        else:
            target = writing / "tokenizer" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, target)
    if metadata.get("classes") and not (writing / "tokenizer" / CLASSES).exists():
        (writing / "tokenizer").mkdir(exist_ok=True)
        (writing / "tokenizer" / CLASSES).write_text(json.dumps(metadata["classes"]), encoding="utf-8")


def _settle(
    path: Path, folder: Path, metadata: Mapping[str, Any], writing: Path, final: Path, *, trust: bool
) -> dict[str, Any]:
    """Change in config.yaml what must not, or cannot, hold here; dotted key -> what it was.

    Code from elsewhere is not trusted. A model of transformers' is built from the config that came with it, so that its
    base need not be fetched.
    """
    content, was = yaml.safe_load(path.read_text(encoding="utf-8")), {}
    if not isinstance(content, dict):
        raise HubError("run/config.yaml holds no settings; it cannot be pulled.")
    if not trust:
        _distrust(content, "", was)
    source = content.get("source")
    if metadata["loader"] == "transformers" and isinstance(source, dict) and source.get("name"):
        (writing / "source").mkdir()
        shutil.copyfile(folder / "config.json", writing / "source" / "config.json")
        was |= {"source.name": source["name"], "source.revision": source.get("revision", "")}
        source |= {"name": f"hf:{final / 'source'}", "revision": ""}
    elif not trust and isinstance(source, dict) and CODE_HERE.fullmatch(str(source.get("name", ""))):
        raise HubError(
            f"The recipe names code on this machine, {source['name']}, which would run when the model is opened. Look"
            " at it, and pull with trust=True."
        )
    if was:
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        log.info("Settings of config.yaml that are changed here: %s.", ", ".join(was))
    return was


def _distrust(content: Any, prefix: str, was: dict[str, Any]) -> None:
    """Switch every trust_code off, at any depth."""
    if isinstance(content, list):
        for place, one in enumerate(content):
            _distrust(one, f"{prefix}{place}.", was)
    if isinstance(content, dict):
        for key, value in content.items():
            if key == TRUST and value:
                was[f"{prefix}{key}"], content[key] = value, False
            _distrust(value, f"{prefix}{key}.", was)


def _weights(
    folder: Path, metadata: Mapping[str, Any], here: list[str], repo_id: str, *, trust: bool
) -> dict[str, torch.Tensor]:
    """The state dict of the model as the run's own code has it."""
    import torch

    wrapped = "" if metadata["loader"] == "ours" else "model."  # models.called.Called holds a model from elsewhere
    if PICKLED in here and trust:
        state = torch.load(folder / PICKLED, map_location="cpu", weights_only=True)
    elif not any(name.endswith(".safetensors") for name in here):
        raise HubError(
            f"{repo_id} has no model.safetensors, and other weights are read from trusted repositories alone: pull it"
            " with trust=True if you trust its owner."
        )
    elif metadata["loader"] == "transformers":
        from utils.models import huggingface

        found = huggingface.find_folder(folder)
        state = huggingface.load(found, overrides={}, kind=metadata["kind"]).model.state_dict()
    else:
        state = _read_safetensors(folder / WEIGHTS[0])
    return {f"{wrapped}{name}": value for name, value in state.items()}


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Names to tensors; a tied one, stored once, under all of its names, as `save_model` noted them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            tied = file.metadata() or {}
    except SafetensorError as error:
        raise HubError(f"{path.name} cannot be read as safetensors: {error}.") from None
    return state | {name: state[kept] for name, kept in tied.items() if kept in state and name not in state}


_RETENTION = """\
Pulled from {repo}, commit {commit}. Nothing here is deleted by the project; the folder stays until you remove it, and
can be pulled again while the repository has that commit.
"""
