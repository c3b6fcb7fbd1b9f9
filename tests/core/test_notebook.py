"""What notebooks need from where they run: forms, Colab, secrets, storage, packages."""

import os
import subprocess
import sys
import venv
import zipfile
from importlib import util
from pathlib import Path

import pytest

from utils.core import notebook


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for variable in [name for name in os.environ if name.startswith("NB_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Puts a `google.colab` of the given files on the path."""

    def put(**files):
        folder = tmp_path / "google" / "colab"
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    yield put
    for name in [name for name in sys.modules if name.startswith("google.colab")]:
        del sys.modules[name]
    if "google" in sys.modules:
        vars(sys.modules["google"]).pop("colab", None)


USERDATA = """
class SecretNotFoundError(Exception): pass
class NotebookAccessError(Exception): pass
def get(key):
    if key == "TOKEN": return "from colab"
    raise NotebookAccessError(key) if key == "CLOSED" else SecretNotFoundError(key)
"""
OUTPUT = """
from google.colab import errors
answer, asked = None, []
def eval_js(script, ignore_result=False, timeout_sec=None):
    asked.append(timeout_sec)
    if answer == "error":
        raise errors.Error("the front end refused")
    return answer
"""
COLAB = {
    "__init__": "",
    "userdata": USERDATA,
    "drive": "mounted = []\nmount = mounted.append\n",
    "errors": "class Error(Exception): pass\n",
    "output": OUTPUT,
}


def test_the_environment_replaces_form_values_in_the_type_of_their_default(monkeypatch):
    for name, text in {"NB_SCALE": "smoke", "NB_SEED": "7", "NB_LR": "3e-4", "NB_RESUME": "FALSE"}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("NB_UID", "1000")  # Jupyter's Docker images set it
    form = notebook.form(scale="standard", seed=1, lr=0.1, resume=True, root="runs")
    assert vars(form) == {"scale": "smoke", "seed": 7, "lr": 3e-4, "resume": False, "root": "runs"}
    assert type(form.lr) is float
    assert "<code>seed</code></td><td>7" in form._repr_html_()


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("NB_SEDE", "1", "NB_SEDE is set, .* did you mean NB_SEED"),
        ("NB_XYZXYZ", "1", "this notebook has: NB_SEED, NB_RESUME"),
        ("NB_SEED", "1.5", "NB_SEED='1.5': expected a value of type int"),
        ("NB_RESUME", "maybe", "NB_RESUME='maybe': expected true or false"),
    ],
)
def test_a_variable_that_fits_no_field_raises(monkeypatch, variable, text, message):
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValueError, match=message):
        notebook.form(seed=1, resume=True)


def test_an_empty_namespace_is_not_colab(stub):
    stub()
    assert util.find_spec("google.colab") is not None  # it can be found, all the same
    assert not notebook.in_colab()
    assert notebook.secret("RUN_ALL_ABSENT") is None
    __import__("google.colab")
    assert not notebook.in_colab()


def test_secrets_come_from_the_environment_then_colab_then_nowhere(stub, monkeypatch):
    monkeypatch.delenv("TOKEN", raising=False)
    assert notebook.secret("TOKEN") is None
    stub(**COLAB)
    assert notebook.in_colab()
    assert [notebook.secret(name) for name in ("TOKEN", "CLOSED", "ABSENT")] == ["from colab", None, None]
    monkeypatch.setenv("TOKEN", "from the environment")
    assert notebook.secret("TOKEN") == "from the environment"


@pytest.mark.parametrize("chosen", [["mine.txt"], [], ["a.txt", "b.txt"]])
def test_a_file_is_uploaded_on_colab_where_the_form_says_so(chosen, stub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert notebook.uploaded("my.txt") == "my.txt"
    with pytest.raises(ValueError, match="in Colab's browser page; here give the file's path"):
        notebook.uploaded("upload")
    stub(**{**COLAB, "files": f"def upload():\n    return dict.fromkeys({chosen!r}, b'text')\n"})
    if len(chosen) == 1:
        assert notebook.uploaded(" upload ") == str(tmp_path / "mine.txt")
    else:
        with pytest.raises(ValueError, match=f"{len(chosen)} files were uploaded; expected one"):
            notebook.uploaded("upload")


def test_drive_is_mounted_on_colab_and_refused_elsewhere(stub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert notebook.storage("runs") == tmp_path.resolve() / "runs"
    with pytest.raises(ValueError, match="only Colab can do"):
        notebook.storage("drive")
    stub(**COLAB)
    assert notebook.storage("drive") == Path("/content/drive/MyDrive/run-all")
    assert sys.modules["google.colab.drive"].mounted == ["/content/drive"]


@pytest.mark.parametrize("requirements", [None, "requirements-colab.txt"])
def test_set_up_installs_the_named_requirements_on_colab_or_nothing(stub, monkeypatch, requirements):
    installed = []
    monkeypatch.setattr(notebook, "install", installed.append)
    notebook.setup(requirements)
    assert installed == []  # not on Colab
    stub(**COLAB)
    notebook.setup(requirements)
    assert installed == ([] if requirements is None else [notebook.ROOT / requirements])


def test_the_gist_id_of_the_form_goes_before_the_environments(monkeypatch):
    assert notebook.gist_id(" ") == ""
    monkeypatch.setenv("NB_GIST_ID", " from-outside ")
    for typed, expected in (("", "from-outside"), (" typed ", "typed")):
        assert notebook.gist_id(typed) == expected
        assert notebook.gist_id(notebook.form(gist_id=typed).gist_id) == expected  # one precedence, either way


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("https://colab.research.google.com/drive/1?gist_id=abc123&x=1 https://frame.example/", "abc123"),
        ("https://colab.research.google.com/ https://frame.example/?a=1#gist_id=octocat%2Fabc123", "octocat/abc123"),
        ("https://colab.research.google.com/ https://frame.example/?not_gist_id=abc123", ""),
        (" https://frame.example/?gist_id= ", ""),
        (None, ""),  # no front end answered in time
        ("error", ""),
    ],
)
def test_on_colab_an_empty_form_asks_the_notebooks_url_and_not_for_long(stub, monkeypatch, answer, expected):
    stub(**COLAB)
    output = __import__("google.colab.output", fromlist=["output"])
    output.answer = answer
    assert notebook.gist_id("typed") == "typed"
    monkeypatch.setenv("NB_GIST_ID", "from-outside")
    assert notebook.gist_id("") == "from-outside"
    assert output.asked == []
    monkeypatch.delenv("NB_GIST_ID")
    assert notebook.gist_id("") == expected
    assert len(output.asked) == 1
    assert 0 < output.asked[0] <= 5  # seconds


def test_of_two_copies_of_a_package_the_imported_one_is_held(tmp_path, monkeypatch):
    for place, name, version in (("b", "Twice_Here", "1.0"), ("a", "twice-here", "2.0"), ("a", "old", "1.1build1")):
        info = tmp_path / place / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path / "b")
    monkeypatch.syspath_prepend(tmp_path / "a")
    lines = notebook.constraints().splitlines()
    assert [line for line in lines if line.startswith("twice")] == ["twice-here==2.0"]
    assert not [line for line in lines if line.startswith("old=")]  # a version that pip cannot read


def wheel(folder, name, version, *requires):
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", f"version = {version!r}\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def test_installing_keeps_what_is_installed_or_fails_and_changes_nothing(tmp_path):
    wheel(tmp_path, "tiny", "1.0")
    wheel(tmp_path, "tiny", "2.0")
    wheel(tmp_path, "harmless", "1.0", "tiny")
    wheel(tmp_path, "greedy", "1.0", "tiny>=2")
    venv.create(tmp_path / "venv", with_pip=True)
    python = next(path for path in (tmp_path / "venv").glob("*/python*") if path.stem == "python")
    packaging = Path(util.find_spec("packaging").origin).parents[1]
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    # Plain folders behind the venv's own: the package under test, and the one dependency it has here.
    environment["PYTHONPATH"] = str(tmp_path / "lib")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "packaging").symlink_to(packaging / "packaging")
    (tmp_path / "lib" / "utils").symlink_to(notebook.ROOT / "utils")

    def run(*command):
        return subprocess.run([str(python), *command], env=environment, capture_output=True, text=True)

    def install(requirement):
        (tmp_path / "requirements.txt").write_text(f"# a comment\n{requirement}\n")
        code = "import sys, pathlib; from utils.core import notebook; notebook.install(pathlib.Path(sys.argv[1]))"
        return run("-c", code, str(tmp_path / "requirements.txt"))

    assert run("-m", "pip", "install", "-q", "tiny==1.0").returncode == 0
    done = install("harmless")
    assert (done.returncode, done.stderr) == (0, "")
    done = install("greedy")
    assert done.returncode == 1
    assert "RuntimeError: pip could not install greedy beside what is here" in done.stderr
    assert "The user requested (constraint) tiny==1.0" in done.stderr
    installed = run("-m", "pip", "list", "--format=freeze").stdout
    assert "tiny==1.0\n" in installed
    assert "harmless==1.0\n" in installed
    assert "greedy" not in installed


@pytest.fixture
def shell(monkeypatch):
    """Stands for the shell that a cell runs in; what it displays is kept, figures in one place as one list."""
    display = pytest.importorskip("IPython.display")
    shown = []

    class Handle:
        def __init__(self, place):
            self.place = place

        def update(self, figure):
            self.place.append(figure)

    def show(figure, display_id):
        assert display_id is True
        shown.append([figure])
        return Handle(shown[-1])

    monkeypatch.setattr(display, "display", show)

    def enter(**attributes):
        monkeypatch.setattr("IPython.get_ipython", lambda: type("Shell", (), attributes)() if attributes else None)
        return shown

    return enter


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [({"kernel": object()}, True), ({"kernel": None}, False), ({"colors": "NoColor"}, False), ({}, False)],
)
def test_only_a_shell_with_a_kernel_shows_figures(shell, attributes, expected):
    shell(**attributes)  # a notebook's, one whose kernel is gone, a terminal's, none at all
    assert notebook.displays() is expected


def test_without_ipython_nothing_is_shown_and_it_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert notebook.displays() is False
    notebook.redrawing(lambda: pytest.fail("drawn for nobody"))()
    assert "IPython" not in sys.modules


def test_a_figure_is_drawn_anew_in_the_place_of_the_one_before(shell):
    shown, figures = shell(kernel=object()), iter(["first", "second", "third", "another"])
    redraw = notebook.redrawing(lambda: next(figures))
    for _ in range(3):
        redraw()
    notebook.redrawing(lambda: next(figures))()
    assert shown == [["first", "second", "third"], ["another"]]


def test_in_a_terminal_nothing_is_drawn(shell):
    shown = shell(colors="NoColor")
    notebook.redrawing(lambda: pytest.fail("drawn for nobody"))()
    assert shown == []
