"""Which device and which precision, and why; the measured matmul peak that utilisation is counted against."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from utils.core.config import ConfigError

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Compute:
    """A chosen device and precision, with the reason for each."""

    device: torch.device
    precision: Literal["fp32", "bf16", "fp16"]
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """What matrix products are computed in."""
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def __str__(self) -> str:
        return f"{self.device.type}, {self.precision} ({self.reason})"


def choose(device: DeviceName = "auto", precision: PrecisionName = "auto") -> Compute:
    """cuda, then mps, then cpu; bf16 where the hardware computes in it, else fp16 (scaled) on cuda, else fp32.

    A device or precision that was asked for by name and is not there raises; nothing else is taken in its place.
    """
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, there in present.items() if there)
        why = {"cuda": "a CUDA GPU is here", "mps": "no CUDA, Apple's GPU is here", "cpu": "no GPU is here"}[device]
    elif not present.get(device):
        here = ", ".join(name for name, there in present.items() if there)
        raise ConfigError(f"Device {device!r} was asked for, but this machine has: {here}. Use one of them or 'auto'.")
    else:
        why = f"{device} was asked for"
    fast, reason = _bf16(device)
    if precision == "auto":
        precision = "bf16" if fast else "fp16" if device == "cuda" else "fp32"
    elif precision == "fp16" and device != "cuda":
        raise ConfigError(f"Precision fp16 needs a CUDA GPU; on {device} use fp32, bf16 or 'auto'.")
    else:
        reason = f"{precision} was asked for; {reason}"
    return Compute(torch.device(device), precision, f"{why}; {reason}")


def make_fabric(compute: Compute) -> Fabric:
    """Lightning Fabric on that device and precision; data-parallel where `torch.distributed.run` started us."""
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # `Compute` says it, once
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator=compute.device.type,
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision={"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[compute.precision],
    )
    fabric.launch()
    return fabric


def leave_processes() -> None:
    """Wait for the other processes, if there are any, and close the links to them: at exit gloo's threads may abort."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _bf16(device: str) -> tuple[bool, str]:
    """Whether products in bf16 run on bf16 hardware, and how that is known."""
    import torch

    if device == "cuda":
        major = torch.cuda.get_device_capability()[0]
        name = torch.cuda.get_device_name()
        return major >= 8, f"{name} has bf16 units" if major >= 8 else f"{name} (before Ampere) has no bf16 units"
    if device == "mps":
        return False, "fp32 is the precision our tests cover on Apple's GPU"
    flags = _cpu_flags()
    unit = next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags), None)
    return unit is not None, f"the CPU has {unit}" if unit else f"this {platform.machine()} CPU has no bf16 units"


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return set(next((line for line in file if line.startswith("flags")), "").split())
    except OSError:
        return set()


@functools.cache
def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks for the next step, instead of giving them back and faulting them in again.

    On a CPU that is a good part of a large step; the process then stays at its peak size. Returns whether it applies
    (mallopt(3): M_MMAP_THRESHOLD is -3, M_TRIM_THRESHOLD -1).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(-3, 1 << 30) and libc.mallopt(-1, -1))


@functools.cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second in a large square matmul, measured here and now: the best in half a second."""
    import torch

    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, generator=torch.Generator().manual_seed(0)).to(device, dtype) for _ in "ab")
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < 0.5:  # long enough to meet the processor at its full speed
        _synchronize(device)
        start = time.perf_counter()
        left @ right
        _synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def _synchronize(device: torch.device) -> None:
    import torch

    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
