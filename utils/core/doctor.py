"""`doctor`: is this machine ready? Python, device, compiler, disk, and each package beside its pin."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

from utils.core.check import Check, Report
from utils.core.notebook import ROOT, in_colab

PYTHON = ((3, 10), (3, 13))


def doctor(storage: Path = Path("runs"), requirements: Path = ROOT / "requirements.txt") -> Report:
    """A check for each thing the notebooks need. A package at another version than the pinned one is a warning."""
    return Report(
        "Environment", [_python(), _device(), _compiler(), _disk(storage), *_packages(requirements)], word="ready"
    )


def _python() -> Check:
    lowest, highest = PYTHON
    tested = lowest <= sys.version_info[:2] <= highest
    where = f"Python {platform.python_version()} on {platform.platform()}{', Colab' if in_colab() else ''}"
    span = f"{lowest[0]}.{lowest[1]} to {highest[0]}.{highest[1]}"
    return Check("python", "pass" if tested else "warn", where if tested else f"{where}; tested with {span}")


def _device() -> Check:
    if not _version("torch"):
        return Check("device", "fail", "torch is not installed; pip install -r requirements.txt")
    from utils.core.device import choose, peak_flops

    compute = choose()
    peak = peak_flops(compute.device, compute.dtype) / 1e12
    return Check("device", "pass", f"{compute}; measured matmul peak {peak:.2f} TFLOP/s")


def _compiler() -> Check:
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++", "cl"))), None)
    return Check(
        "compiler", *(("pass", found) if found else ("skip", "no C++ compiler: train.compile=true cannot be used"))
    )


def _disk(storage: Path) -> Check:
    place = next(folder for folder in (storage.resolve(), *storage.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    return Check("disk", "pass" if free > 2 else "warn", f"{free:.1f} GiB free for runs in {storage.resolve()}")


def _packages(requirements: Path) -> list[Check]:
    checks = []
    for line in requirements.read_text().splitlines():
        name, _, pinned = line.partition("==")
        if not pinned:
            continue
        found = (_version(name) or "").partition("+")[0]
        if not found:
            checks.append(Check(name, "fail", f"not installed; pip install {line}"))
        elif found == pinned:
            checks.append(Check(name, "pass", found))
        else:
            checks.append(Check(name, "warn", f"{found}; tested with {pinned}"))
    return checks


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
