"""What a notebook needs from where it runs: packages, settings, secrets, storage. The only place that knows of Colab.

Leaves out a prompt of any kind: *Run all* asks nothing.
"""

from __future__ import annotations

import contextlib
import difflib
import html
import importlib.util
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
DRIVE = Path("/content/drive")
JUPYTER = ("NB_USER", "NB_UID", "NB_GID", "NB_GROUP", "NB_UMASK")  # set by Jupyter's Docker images, and not ours
FORM_FIRST = ("gist_id",)  # fields whose own text goes before the environment's


def in_colab() -> bool:
    """Whether this kernel is Colab's. An empty `google.colab` namespace on the path is not enough to say so."""
    if "google.colab" in sys.modules:
        return getattr(sys.modules["google.colab"], "__file__", None) is not None
    try:
        spec = importlib.util.find_spec("google.colab")
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None


def setup(requirements: str | None = "requirements-colab.txt") -> None:
    """On Colab, install what it lacks (None: nothing); anywhere, send this package's warnings to the cell's output.

    Packages already there (torch, numpy, pandas, ...) are held by a constraints file at the versions they have, so
    nothing loaded is replaced and the runtime need not restart.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stdout)
    logging.getLogger("utils").setLevel(logging.INFO)
    if requirements is not None and in_colab():
        install(ROOT / requirements)


def install(requirements: Path) -> None:
    """pip-install a requirements file under constraints made from the installed set. Raises when pip fails."""
    wanted = [line for line in requirements.read_text().splitlines() if line.strip() and not line.startswith("#")]
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "constraints.txt"
        held.write_text(constraints())
        command = [sys.executable, "-m", "pip", "install", "-r", str(requirements), "-c", str(held)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"pip could not install {', '.join(wanted)} beside what is here:\n{done.stdout}{done.stderr}"
        )
    importlib.invalidate_caches()


def constraints() -> str:
    """`name==version` for every installed package, one a line."""
    from packaging.utils import canonicalize_name
    from packaging.version import InvalidVersion, Version

    held: dict[str, str] = {}
    for dist in metadata.distributions():  # in the order of sys.path: of two copies, the first is the one imported
        with contextlib.suppress(InvalidVersion):  # a system package, which pip cannot hold or replace
            if dist.metadata["Name"]:
                held.setdefault(canonicalize_name(dist.metadata["Name"]), str(Version(dist.version)))
    return "".join(f"{name}=={version}\n" for name, version in sorted(held.items()))


class Settings:
    """A form's values as attributes; shows itself as a table."""

    def __init__(self, values: dict[str, Any]):
        self.__dict__.update(values)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{name}</code></td><td>{html.escape(str(value)) or '&ndash;'}</td></tr>"
            for name, value in vars(self).items()
        )
        return f"<table><tr><th>setting</th><th>value</th></tr>{rows}</table>"

    def __repr__(self) -> str:
        return "\n".join(f"{name} = {value!r}" for name, value in vars(self).items())


def form(**values: str | bool | int | float) -> Settings:
    """The form's values, each replaced by the environment's `NB_<NAME>` where set, read as the default's type.

    A field of FORM_FIRST keeps the text that stands in it. An `NB_` variable that no field answers to, or a text that
    is no such number, raises.
    """
    known = {f"NB_{name.upper()}": name for name in values}
    for variable, text in os.environ.items():
        if not variable.startswith("NB_") or (variable in JUPYTER and variable not in known):
            continue
        if variable not in known:
            near = difflib.get_close_matches(variable, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"this notebook has: {', '.join(known)}."
            raise ValueError(f"{variable} is set, but this notebook's form has no such setting; {hint}")
        name = known[variable]
        if not (name in FORM_FIRST and values[name]):
            values[name] = _parse(variable, text, type(values[name]))
    return Settings(values)


def _parse(variable: str, text: str, kind: type) -> str | bool | int | float:
    if kind is bool:
        if text.lower() not in ("0", "1", "false", "true"):
            raise ValueError(f"{variable}={text!r}: expected true or false.")
        return text.lower() in ("1", "true")
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{variable}={text!r}: expected a value of type {kind.__name__}.") from None


def gist_id(form: str, *, url: bool = True) -> str:
    """The Gist to validate: the form's text, else NB_GIST_ID, else `gist_id=` in the Colab notebook's URL, else "".

    The form is primary, since it is what a person sees; `url` is False where it names another model, and the URL is not
    read. What is returned may be any text: models/source.py judges it.
    """
    return form.strip() or os.environ.get("NB_GIST_ID", "").strip() or (_gist_id_of_url() if url and in_colab() else "")


def _gist_id_of_url() -> str:
    """`gist_id=` in the URL that the browser shows to a cell's output; "" where it keeps the URL to itself."""
    from google.colab import errors, output

    try:
        urls = output.eval_js("[document.referrer, document.location.href].join(' ')", timeout_sec=3)
    except errors.Error:  # the front end refused
        return ""
    found = re.search(r"[?&#]gist_id=([^&#\s]+)", urls or "")  # None: no front end answered in time
    return unquote(found[1]) if found else ""


def storage(place: str) -> Path:
    """The folder that runs go to: a path, or "drive" for Google Drive (mounted now; Colab only)."""
    if place != "drive":
        return Path(place).expanduser().resolve()
    if not in_colab():
        raise ValueError('storage="drive" mounts Google Drive, which only Colab can do; here, name a folder instead.')
    from google.colab import drive

    drive.mount(str(DRIVE))
    return DRIVE / "MyDrive" / "run-all"


def uploaded(name: str) -> str:
    """The corpus of a form: where it says "upload", a file that a person chooses in the browser, on Colab only.

    Raises ValueError elsewhere, and where none or several are chosen.
    """
    if name.strip() != "upload":
        return name
    if not in_colab():
        raise ValueError("corpus='upload' asks for a file in Colab's browser page; here give the file's path instead.")
    from google.colab import files

    chosen = list(files.upload())
    if len(chosen) != 1:
        raise ValueError(f"{len(chosen)} files were uploaded; expected one: run the cell again.")
    return str(Path(chosen[0]).resolve())


def secret(name: str) -> str | None:
    """A secret from the environment, then from Colab's secrets, else None. It is never printed or asked for."""
    if os.environ.get(name):
        return os.environ[name]
    if not in_colab():
        return None
    from google.colab import userdata

    try:
        return userdata.get(name)
    except (userdata.SecretNotFoundError, userdata.NotebookAccessError):
        return None


def redrawing(draw: Callable[[], Figure]) -> Callable[[], None]:
    """A call that draws a figure anew in the place of the one before, in a notebook; elsewhere it does nothing."""
    shown: list[Any] = []

    def redraw() -> None:
        if not displays():
            return
        from IPython.display import display

        if shown:
            shown[0].update(draw())
        else:
            shown.append(display(draw(), display_id=True))

    return redraw


def displays() -> bool:
    """Whether a front end shows what is displayed; a plain terminal shows figures as their names only."""
    ipython = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(ipython, "kernel", None) is not None
