"""Reproducibility: one seed, the state of every generator, deterministic mode, and a stamp of the environment."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any


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
        "git": _git(),
        "devices": _devices(),
    }
    return {**facts, "packages": installed} if packages else facts


def _git() -> dict[str, Any] | None:
    """Commit and dirtiness of the checkout this package runs from; None outside git."""
    folder = Path(__file__).parent
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(status)}


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
