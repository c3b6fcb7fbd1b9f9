"""Commands that say whether a model is sound, and what this machine has; and that run a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from utils.core.options import Root

app = typer.Typer()


@app.command()
def validate(
    source: Annotated[
        str, typer.Argument(help="example:gpt|bert|t5|vit, gist:ID, a .py file or folder, or a Hugging Face id")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="settings laid over the model's config, such as num_layers=2")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="folder for validation_report.html and .json")] = None,
    revision: Annotated[str, typer.Option(help="of a Gist or a Hugging Face model")] = "",
    trust_code: Annotated[bool, typer.Option("--trust-code", help="let code from elsewhere run")] = False,
    kind: Annotated[str, typer.Option(help="causal_lm, masked_lm, seq2seq, classifier or image_classifier")] = "",
    scale: Annotated[str, typer.Option(help="smoke, standard or full")] = "standard",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    seed: Annotated[int, typer.Option(help="of the weights and the inputs")] = 0,
) -> None:
    """Is this model sound? Exits 0, 1 where a critical check failed, or 2 where it could not be loaded."""
    from utils.core.config import ConfigError, parse_overrides
    from utils.validation.report import validate
    from utils.validation.settings import ValidationConfig

    if report is not None:
        try:
            report.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--report {report} cannot be a folder for the report: {error.strerror}.") from None
    config = ValidationConfig.load(
        source=source, revision=revision, trust_code=trust_code, kind=kind, config=parse_overrides(overrides or ()),
        scale=scale, device=device, seed=seed,
    )  # fmt: skip
    result = validate(config)
    print(result)
    if report is not None:
        page, _ = result.save(report, "validation_report")
        print(f"Report: {page.resolve()}")
    raise typer.Exit(not result.sound)


@app.command()
def doctor(root: Root = Path("runs")) -> None:
    """Say what this machine has and what is missing. Exits 1 where a needed package is absent."""
    from utils.core.doctor import doctor

    report = doctor(root)
    print(report)
    raise typer.Exit(report.status == "fail")


@app.command()
def notebook(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="a notebook of this project")],
    settings: Annotated[list[str] | None, typer.Argument(help="settings of its form, such as scale=smoke")] = None,
    output: Annotated[
        Path | None, typer.Option(help="where the executed copy goes; default: runs/<name>-executed.ipynb")
    ] = None,
) -> None:
    """Run a notebook from a fresh kernel, top to bottom, showing what its cells print."""
    from utils.core.config import ConfigError
    from utils.core.headless import execute

    malformed = [setting for setting in settings or () if "=" not in setting]
    if malformed:
        raise ConfigError(f"{malformed[0]!r} is not of the form name=value, such as scale=smoke.")
    output = output or Path("runs") / f"{path.stem}-executed.ipynb"
    execute(path, output, dict(setting.split("=", 1) for setting in settings or ()))
    print(f"Executed notebook: {output.resolve()}")
