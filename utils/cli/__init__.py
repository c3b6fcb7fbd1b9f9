"""`python -m utils`: the notebooks' functions as commands."""

from __future__ import annotations

import logging
import sys

import typer

from utils.cli import checks, publish, studies, training
from utils.rl.commands import app as ppo
from utils.vae.commands import app as vae

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
for commands in (training, studies, publish, checks):
    app.add_typer(commands.app)
app.add_typer(vae, name="vae")
app.add_typer(ppo, name="ppo")


def main() -> None:
    """Run a command; an error of the user's own making is one line and exit code 2, any other a traceback."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("utils").setLevel(logging.INFO)
    from utils.arc.grids import GridError
    from utils.arc.programs import ProgramsError
    from utils.arc.prompts import PromptError
    from utils.arc.tasks import TaskError
    from utils.core.checkpoints import CheckpointError
    from utils.core.config import ConfigError
    from utils.core.run import RunError
    from utils.publish.errors import HubError, ServeError
    from utils.publish.manifest import ExportError
    from utils.rl.sandbox import SandboxError

    known = (
        ConfigError, RunError, CheckpointError, GridError, TaskError, PromptError, ProgramsError, SandboxError,
        ExportError, HubError, ServeError,
    )  # fmt: skip
    try:
        app()
    except known as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
