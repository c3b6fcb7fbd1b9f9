"""Commands that turn a run into files for others: export, push, pull, serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from utils.core.options import Root, RunPath

if TYPE_CHECKING:
    from utils.models.exportable import Exportable

app = typer.Typer()
Repository = Annotated[str, typer.Argument(help="user/name or organisation/name on the Hugging Face Hub")]
Private = Annotated[bool | None, typer.Option("--private/--public", help="of a new repository")]
Revision = Annotated[str, typer.Option(help="branch")]
Tag = Annotated[str | None, typer.Option(help="instead of the next version, such as v0.2.0")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="list what would go; sends nothing")]


@app.command()
def export(
    run: RunPath,
    formats: Annotated[
        str, typer.Option(help="safetensors,state_dict,onnx,pt2,torchscript,int8; default: all but int8")
    ] = "",
    license: Annotated[str, typer.Option(help="of the weights, an SPDX identifier such as mit")] = "",
) -> None:
    """Write a run's best weights in formats for others, each proven equal to the model. Exits 1 where one is not."""
    from utils.publish.formats import DEFAULT
    from utils.publish.formats import export as write

    exportable = exportable_of(run, license=license)
    report = write(exportable, formats=[name.strip() for name in formats.split(",")] if formats else DEFAULT)
    print(report)
    raise typer.Exit(report.status == "fail")


@app.command()
def push(
    run: Annotated[Path, typer.Argument(help="a run folder that was exported, or an export folder")],
    repository: Repository,
    private: Private = None,
    revision: Revision = "main",
    tag: Tag = None,
    dry_run: DryRun = False,
) -> None:
    """Publish a run's export on the Hugging Face Hub, with a model card; HF_TOKEN, or a login, says who you are."""
    from utils.publish import hub

    print(hub.push(run, repository, private=private, revision=revision, tag=tag, dry_run=dry_run))


@app.command()
def push_dataset(
    data: Annotated[Path, typer.Argument(help="a file or a folder of data, such as a corpus in runs/data")],
    repository: Repository,
    private: Private = None,
    revision: Revision = "main",
    tag: Tag = None,
    license: Annotated[str, typer.Option(help="of the data, an SPDX identifier such as mit")] = "",
    dry_run: DryRun = False,
) -> None:
    """Publish data on the Hugging Face Hub, with a card."""
    from utils.publish import datasets

    how = {"private": private, "revision": revision, "tag": tag, "license": license, "dry_run": dry_run}
    print(datasets.push_dataset(data, repository, **how))


@app.command()
def pull(
    repository: Repository,
    root: Root = Path("runs"),
    revision: Annotated[str, typer.Option(help="branch, tag or commit")] = "main",
    trust: Annotated[bool, typer.Option("--trust", help="take pickled weights and let the model's code run")] = False,
) -> None:
    """Fetch a model that was pushed, as a run's folder: to evaluate or generate; to serve it, export it first.

    It cannot be resumed: what training left beside the weights is not published.
    """
    from utils.publish import hub

    print(hub.pull(repository, revision=revision, root=root, trust=trust).path)


@app.command()
def serve(
    run: Annotated[Path, typer.Argument(help="a run folder that was exported, or an export folder")],
    host: Annotated[str, typer.Option(help="0.0.0.0 lets others in: there is no account")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    limits: Annotated[list[str] | None, typer.Option("--limit", help="such as new_tokens=200 or seconds=20")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="read a .pt2, which can run code that it holds")] = False,
) -> None:
    """Serve an export over HTTP, with a page to try it at /, until Ctrl-C."""
    from utils.publish import serve as server
    from utils.publish.hub import export_folder
    from utils.publish.limits import Limits

    server.serve(export_folder(run), host, port, Limits.load(None, limits or ()), trust=trust)


def exportable_of(run: Path, *, license: str = "") -> Exportable:
    """What the formats need to know of a run, whatever family it is of."""
    from importlib import import_module

    from utils.core.config import ConfigError
    from utils.core.run import Run
    from utils.training.families import family_of

    opened = Run.open(run)
    places = {"language model": "training", "VAE": "vae", "PPO": "rl"}
    family = family_of(opened.config)
    if family not in places:
        raise ConfigError(
            f"{opened.path} is of no family that can be exported: its settings are {list(opened.config)}."
        )
    return import_module(f"utils.{places[family]}.exportable").exportable_of(opened, license=license)
