"""Options and arguments that the commands of several kinds of recipe share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[str, typer.Argument(help="a recipe: a YAML file, or a name in configs/")]
RunPath = Annotated[Path, typer.Argument(help="a run folder")]


class Resume(str, Enum):
    auto = "auto"
    never = "never"


class Split(str, Enum):
    train = "train"
    validation = "validation"
    test = "test"


Resuming = Annotated[Resume, typer.Option(help="auto takes up the run of this very recipe; never makes a new one")]
Overrides = Annotated[list[str] | None, typer.Argument(help="settings to change, such as train.lr=3e-4")]
Root = Annotated[Path, typer.Option(help="folder that runs and prepared data go to")]
