"""How busy the machine is while a run trains: a light thread samples it, and the next record takes what it saw.

Memory in GiB, use in percent. Leaves out the devices of other processes but for what a GPU reports about itself.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from statistics import fmean

GIB = 2**30
PEAKS = ("memory_gib", "gpu_memory_gib")  # of several samples the highest counts; of the others the mean


class Monitor:
    """Samples every `seconds` from its making to `close`; the first one after that time."""

    def __init__(self, seconds: float = 5.0):
        import psutil

        self.process = psutil.Process()
        psutil.cpu_percent(None)  # the first call only marks the beginning of what the next one covers
        self.samples: list[dict[str, float]] = []
        self.fault: Exception | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._seconds = seconds
        self._thread = threading.Thread(target=self._watch, name="run-monitor", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._closed.wait(self._seconds):
            try:
                seen = self.sample()
            except Exception as error:  # whatever a driver does, training goes on; `take` tells it
                self.fault = error
                return
            with self._lock:
                self.samples.append(seen)

    def sample(self) -> dict[str, float]:
        """The machine now: `cpu_percent` and `memory_percent` of the whole machine, `memory_gib` of this process, and
        with a CUDA device in use its memory and use."""
        import psutil

        seen = {
            "cpu_percent": psutil.cpu_percent(None),
            "memory_percent": psutil.virtual_memory().percent,
            "memory_gib": self.process.memory_info().rss / GIB,
        }
        return seen | _gpu()

    def take(self) -> dict[str, float]:
        """What was seen since the last call, as `system/<name>`: peaks of memory, means of the rest; {} for nothing."""
        with self._lock:
            samples, self.samples = self.samples, []
        names = dict.fromkeys(name for one in samples for name in one)
        values = {name: [one[name] for one in samples if name in one] for name in names}
        return {
            f"system/{name}": round(max(seen) if name in PEAKS else fmean(seen), 3) for name, seen in values.items()
        }

    def close(self) -> None:
        self._closed.set()
        self._thread.join()


def _gpu() -> dict[str, float]:
    """Memory used on the current CUDA device, and its use where NVIDIA's own library is there to ask."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    free, total = torch.cuda.mem_get_info()
    seen = {"gpu_memory_gib": (total - free) / GIB, "gpu_memory_percent": 100 * (total - free) / total}
    with contextlib.suppress(ModuleNotFoundError):  # no pynvml
        seen["gpu_percent"] = float(torch.cuda.utilization())
    return seen
