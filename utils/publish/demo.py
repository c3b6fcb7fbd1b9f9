"""`demo`: an export folder tried in a notebook, by Gradio where it is installed already (as on Colab).

Leaves out serving others (`publish.serve`), whose page at / does the same without Gradio.
"""

from __future__ import annotations

import html
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.publish.handling.checks import BadRequest
from utils.publish.handling.endpoint import EndpointHandler
from utils.publish.loading import load
from utils.publish.manifest import verify

PARAMETERS = {
    "causal_lm": {"max_new_tokens": 80, "temperature": 0.8, "seed": 0},
    "seq2seq": {"max_new_tokens": 80},
    "masked_lm": {"top_k": 3},
    "classifier": {},
    "vae": {"n": 1, "seed": 0},
}


@dataclass(frozen=True)
class NoDemo:
    """What there is without a form: it says why."""

    why: str
    folder: Path

    def __str__(self) -> str:
        return f"No form here: {self.why}. The server has a page to try the model: python -m utils serve {self.folder}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"


def demo(path: str | Path, *, wanted: bool = True, trust: bool = False) -> Any:
    """A Gradio form for an export folder, shown in the notebook; or `NoDemo`. It is shared with nobody: this machine
    reaches it, or on Colab the notebook's page, and nothing is told to Gradio's makers."""
    folder = Path(path).resolve()
    if not wanted:
        return NoDemo("gradio is not ticked in the settings", folder)
    if importlib.util.find_spec("gradio") is None:
        return NoDemo("Gradio is not installed", folder)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when it is imported
    form = form_of(folder, trust=trust)
    form.launch(share=False, quiet=True, inline=True, prevent_thread_lock=True)
    return form


def form_of(folder: Path, *, trust: bool = False) -> Any:
    """The form, not yet shown: a text and parameters in, the answer out. `trust`: as `publish.serve`."""
    import gradio

    verify(folder)
    handler = EndpointHandler(folder, load=load, trust=trust)

    def answer(text: str, parameters: str) -> str:
        try:
            found = handler({"inputs": text, "parameters": json.loads(parameters or "{}")})
        except (BadRequest, json.JSONDecodeError) as error:
            raise gradio.Error(str(error)) from None
        return json.dumps(found, ensure_ascii=False, indent=1)

    return gradio.Interface(
        answer,
        [
            gradio.Textbox(label="text", lines=3),
            gradio.Code(json.dumps(PARAMETERS[handler.kind]), language="json", label="parameters"),
        ],
        gradio.Textbox(label="answer", lines=8),
        title=handler.metadata["name"],
        flagging_mode="never",
    )
