"""Reproducibility: one seed, the state of every generator, deterministic mode, and a stamp of the environment.

The stamp names the git commit, and of a checkout with changes their hash; `save_changes` keeps the changes themselves.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.core.redact import redacted

if TYPE_CHECKING:
    import torch

CHANGES = "changes.diff"


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seed python, numpy and torch (every device); data workers take theirs from torch's.

    `deterministic` also makes torch refuse operations that have no deterministic form, and fixes cuBLAS's workspace
    (https://docs.pytorch.org/docs/stable/notes/randomness.html).
    """
    import torch

    seed_generators(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = False


def seed_generators(seed: int) -> None:
    """Seed python, numpy and torch (every device), and change no mode."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The state of every generator, in types that `torch.load(weights_only=True)` accepts."""
    import numpy
    import torch

    name, keys, position, has_gauss, cached = numpy.random.get_state()
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [name, torch.from_numpy(keys.astype("int64")), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` gave. States of devices that this machine lacks are passed over."""
    import numpy
    import torch

    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((name, keys.numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all(state["cuda"])
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


@contextlib.contextmanager
def preserved_rng() -> Iterator[None]:
    """Whatever is drawn inside leaves the generators as they were."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def environment(*, packages: bool = True) -> dict[str, Any]:
    """Where this process runs: OS, python, the installed set and its hash, git commit, devices."""
    installed = sorted({f"{dist.metadata['Name']}=={dist.version}".lower() for dist in metadata.distributions()})
    facts = {
        "os": platform.platform(),
        "python": platform.python_version(),
        "env_hash": hashlib.sha256("\n".join(installed).encode()).hexdigest()[:12],
        "git": git_facts(),
        "devices": _devices(),
    }
    return {**facts, "packages": installed} if packages else facts


def git_facts(folder: Path | None = None) -> dict[str, Any] | None:
    """Commit of a checkout (this package's own), whether it is changed, and a hash of the changes; None outside git."""
    status = _ask_git("status", "--porcelain", folder=folder)
    commit = _ask_git("rev-parse", "HEAD", folder=folder)
    if commit is None or status is None:
        return None
    facts: dict[str, Any] = {"commit": commit.strip(), "dirty": bool(status.strip())}
    if facts["dirty"]:
        facts["changes"] = hashlib.sha256(_changes(status, folder).encode()).hexdigest()[:12]
    return facts


def changes(*, limit: int = 200_000, folder: Path | None = None) -> str | None:
    """What the checkout has changed since its commit, as text; None where it has not, and outside git.

    The names of new files, then `git diff HEAD`, from which `git apply` brings the changes back. Known secrets are
    masked, and of more than `limit` characters the rest is left out, which the last line says.
    """
    status = _ask_git("status", "--porcelain", folder=folder)
    if not (status or "").strip():
        return None
    text = redacted(_changes(status, folder))
    left = len(text) - limit
    return text if left <= 0 else f"{text[:limit]}\n# {left:,} more characters are left out\n"


def save_changes(run: Path, *, folder: Path | None = None) -> Path | None:
    """Write `changes.diff` into a run's folder where the checkout has changes; None where it has not."""
    text = changes(folder=folder)
    if text is None:
        return None
    path = run / CHANGES
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def _changes(status: str, folder: Path | None = None) -> str:
    new = "".join(f"# new file, not in the diff: {line[3:]}\n" for line in status.splitlines() if line[:2] == "??")
    return new + (_ask_git("diff", "HEAD", "--no-color", "--no-ext-diff", folder=folder) or "")


def _ask_git(*command: str, folder: Path | None = None) -> str | None:
    """What git prints; None where there is no git, or it fails. It takes no lock, so it is in no one's way."""
    where = ["git", "--no-optional-locks", "-C", str(folder or Path(__file__).parent)]
    try:
        done = subprocess.run(
            [*where, *command], capture_output=True, text=True, check=True, encoding="utf-8", errors="replace"
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def weights_hash(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 of weights: their names, types, shapes and bytes, in the order of the names."""
    import torch

    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _devices() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    facts: dict[str, Any] = {"cpu": _cpu(), "cpu_count": os.cpu_count()}
    if torch is not None and torch.cuda.is_available():
        facts["cuda"] = torch.version.cuda
        facts["gpu"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        facts["driver"] = _driver()
    if torch is not None and torch.backends.mps.is_available():
        facts["gpu"] = ["Apple GPU (mps)"]
    return facts


def _cpu() -> str:
    """The processor's model name where the system tells, else its architecture."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return None
