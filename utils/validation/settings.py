"""What is validated and how: the settings of template.ipynb's form and of `python -m utils validate`."""

from __future__ import annotations

import os
import re
import shlex
from typing import Any, Literal

from utils.core.config import Config, ConfigError, parse_overrides
from utils.core.device import DeviceName
from utils.core.notebook import Settings, gist_id
from utils.models.facts import Kind

DEFAULT = "example:gpt"


class ValidationConfig(Config):
    """One validation: a source, how it is loaded, and how much is tried."""

    source: str = DEFAULT
    """example:gpt|bert|t5|vit, gist:ID, a .py file or a folder, or a Hugging Face id"""
    revision: str = ""
    """of a Gist or a Hugging Face model; empty: the newest"""
    trust_code: bool = False
    """whether code from elsewhere may run"""
    kind: Literal["", Kind] = ""
    """what the model is; empty: what it says itself, else inferred"""
    config: dict[str, Any] = {}
    """settings laid over the model's own config"""
    scale: Literal["smoke", "standard", "full"] = "standard"
    """how much is tried"""
    device: DeviceName = "auto"
    """where the checks run"""
    seed: int = 0
    """of the weights and of every input"""

    @property
    def run_name(self) -> str:
        return "validate-" + re.sub(r"[^\w.-]+", "-", self.source.rstrip("/").rpartition("/")[2]).strip("-")


def settings_from_form(form: Settings) -> ValidationConfig:
    """The form's fields; a Gist id (the form's, NB_GIST_ID's, or the URL's) stands for the source `gist:ID`."""
    gist = gist_id(form.gist_id, url=not form.source)
    if gist and form.source:
        raise ConfigError(f"Both gist_id ({gist}) and source ({form.source}) are given; empty one of them.")
    return ValidationConfig.load(
        source=_gist_source(gist) if gist else form.source or DEFAULT,
        revision=form.revision,
        trust_code=form.trust_code,
        kind=form.kind,
        config=parse_overrides(shlex.split(form.config, posix=os.name == "posix")),
        scale=form.scale,
        device=form.device,
        seed=form.seed,
    )


def _gist_source(text: str) -> str:
    """`gist:ID` of an id, `gist:ID` or `OWNER/ID`; an address of gist.github.com, with its revision, as it is."""
    return text if "gist.github" in text else f"gist:{text.removeprefix('gist:').rpartition('/')[2]}"
