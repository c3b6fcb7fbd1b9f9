"""Run a notebook without a browser: in a fresh kernel, its output echoed as it comes, the executed copy kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def execute(notebook: Path, output: Path, settings: Mapping[str, str], *, timeout: int | None = None) -> None:
    """Execute `notebook` with `settings` as its form's `NB_` variables; write the executed copy to `output`.

    A cell that fails raises nbclient's CellExecutionError, after the copy (with the error in it) is written.
    """
    import nbformat
    from nbclient import NotebookClient

    class Echo(NotebookClient):
        """Sends what cells print to this process's stdout, too."""

        def output(self, outs: list, msg: dict[str, Any], display_id: str, cell_index: int) -> Any:
            if msg["msg_type"] == "stream":
                sys.stdout.write(msg["content"]["text"])
                sys.stdout.flush()
            return super().output(outs, msg, display_id, cell_index)

    def heading(cell: Any, cell_index: int) -> None:
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
    try:
        client.execute(env={**os.environ, **variables})
    finally:
        output.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(content, output)
