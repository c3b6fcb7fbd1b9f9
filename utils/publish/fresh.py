"""A fresh process that loads export files and runs them: `parity_worker.py`, started, watched and asked.

Leaves out what its answers are worth (`publish.compare`).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.core.redact import redacted

WORKER = Path(__file__).with_name("parity_worker.py")
TIMEOUT = 600.0  # seconds that one process has
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|KEY", re.IGNORECASE)
_LONGEST = 300  # characters of what a process that died said last


def answers(
    proofs: Sequence[Mapping[str, Any]], out: Path, job: Mapping[str, Any], *, timeout: float = TIMEOUT
) -> dict[str, dict[str, Any]]:
    """What fresh processes found, by the proofs' names; an `error` among it where one failed.

    One process does them all, in order. Where it dies or takes too long, that is the answer to the proof it was at,
    and another process does the rest. `out` is the folder where the outputs come to lie.
    """
    found: dict[str, dict[str, Any]] = {}
    left = list(proofs)
    while left:
        file = out / "job.json"
        places = [one for one in sys.path if Path(one).name in ("site-packages", "dist-packages")]
        file.write_text(json.dumps({**job, "packages": places, "out": str(out), "proofs": left}), encoding="utf-8")
        end = _run(file, out, timeout)
        for proof in list(left):
            answer = out / f"{proof['name']}.json"
            if not answer.is_file():
                break
            found[proof["name"]] = redacted(json.loads(answer.read_text(encoding="utf-8")))
            left.remove(proof)
        if left:
            found[left.pop(0)["name"]] = {"error": end or "the process ended without an answer"}
    return found


def _run(job: Path, out: Path, timeout: float) -> str:
    """Run the worker; why it ended early, or nothing."""
    # -I: neither the worker's folder, nor the current one, nor PYTHONPATH is searched; -B: no __pycache__ in an export
    command = [sys.executable, "-I", "-B", str(WORKER), str(job)]
    try:
        done = subprocess.run(
            command, cwd=out, env=environment(), capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return f"the process took more than {timeout:g} seconds and was ended"
    if done.returncode == 0:
        return ""
    last = next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), "")[:_LONGEST]
    how = f"died of signal {-done.returncode}" if done.returncode < 0 else f"ended with code {done.returncode}"
    return redacted(f"the process {how}{f': {last}' if last else ''}")


def environment() -> dict[str, str]:
    """This process's variables without those whose names sound secret; on the CPU, and without the Hub."""
    kept = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
    return {**kept, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
