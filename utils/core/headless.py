"""Run a notebook without a browser: in a fresh kernel, its output echoed as it comes, the executed copy kept.

A run that fails has a copy of its own, so it never takes the place of one that ended well.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.core.run import RunError

LAST = 12  # lines of an error that are shown; the executed copy has them all


class NotebookError(RunError):
    """A cell of a notebook that failed: which, the last lines of its error, and where the executed copy is."""


def execute(notebook: Path, output: Path, settings: Mapping[str, str], *, timeout: int | None = None) -> None:
    """Execute `notebook` with `settings` as its form's `NB_` variables; write the executed copy to `output`.

    A cell that fails raises `NotebookError`, after the copy (with the whole error in it) is written beside `output`, as
    `<name>-failed.ipynb`; so is one that is broken off. The copy of the last run that ended well stays.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    class Echo(NotebookClient):
        """Sends what cells print to this process's stdout, too."""

        def output(self, outs: list, msg: dict[str, Any], display_id: str, cell_index: int) -> Any:
            if msg["msg_type"] == "stream":
                sys.stdout.write(msg["content"]["text"])
                sys.stdout.flush()
            return super().output(outs, msg, display_id, cell_index)

    begun = [0]

    def heading(cell: Any, cell_index: int) -> None:
        begun[0] = cell_index
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            print(f"\n{cell.source.splitlines()[0]}", flush=True)

    content = nbformat.read(notebook, as_version=4)
    client = Echo(
        content,
        timeout=timeout,
        coalesce_streams=True,
        on_cell_start=heading,
        resources={"metadata": {"path": str(notebook.resolve().parent)}},
    )
    variables = {f"NB_{name.upper()}": value for name, value in settings.items()}
    fault, kept = "", output.with_name(f"{output.stem}-failed{output.suffix}")
    try:
        client.execute(env={**os.environ, **variables})
        kept = output
    except CellTimeoutError:
        fault = f"It took more than {timeout} seconds."
    except CellExecutionError as error:
        fault = _last_lines(error.traceback)
    finally:
        kept.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(content, kept)
    if fault:
        before = f"\nThe copy of an earlier run stays as it was: {output.resolve()}" if output.exists() else ""
        raise NotebookError(
            f"{notebook}: cell {begun[0]} (of {len(content.cells)}, from 0) failed:\n\n"
            f"{_indented(content.cells[begun[0]].source)}\n\n{fault}\n\nThe executed copy, with the whole error:"
            f" {kept.resolve()}{before}"
        )


def _last_lines(traceback: str) -> str:
    """The end of a kernel's traceback, without colours and blank lines."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", traceback)
    lines = [line for line in plain.splitlines() if line.strip()]
    return "\n".join(lines[-LAST:])


def _indented(source: str) -> str:
    return "\n".join(f"    {line}" for line in source.splitlines())
