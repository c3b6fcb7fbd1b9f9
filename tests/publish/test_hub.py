"""Pushing to and pulling from a Hub on the loopback, by the real client. The fixtures `hub` and `folder` are here."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

huggingface_hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from utils.core import notebook, redact  # noqa: E402
from utils.core.run import Run  # noqa: E402
from utils.publish import errors  # noqa: E402
from utils.publish.account import connect  # noqa: E402
from utils.publish.datasets import push_dataset  # noqa: E402
from utils.publish.folder import ExportError, seal, write_folder  # noqa: E402
from utils.publish.formats import export  # noqa: E402
from utils.publish.hub import pull, push  # noqa: E402
from utils.publish.outgoing import Outgoing  # noqa: E402
from utils.publish.pushed import Push  # noqa: E402
from utils.publish.sending import send  # noqa: E402
from utils.publish.versions import following, latest  # noqa: E402
from utils.publish.weights import write_safetensors, write_state_dict  # noqa: E402

_spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).parents[1] / "hub_server.py")
hub_server = sys.modules["hub_server"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hub_server)
Fault, Hub, User = hub_server.Fault, hub_server.Hub, hub_server.User

TOKEN = "hf_plantedPLANTEDplanted0123456789"
READER = "hf_readerREADERreaderREADER0123456"
USERS = {
    TOKEN: User("ada", {"lab": "write", "club": "read"}),
    READER: User("ada", {"lab": "write"}, role="read"),
    "hf_bobbobbobbobbobbobbobbobbob012": User("bob"),
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub where ada is logged in; the client's pauses are skipped."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    patient = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr(huggingface_hub.utils._http, "time", patient)
    monkeypatch.setattr(errors, "PAUSE", 0.001)
    monkeypatch.setattr(redact, "_told", set())
    with Hub(USERS, page=20) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
        huggingface_hub.utils.close_session()


def exported(exportable, to):
    """An export folder of weights alone."""

    def fill(folder):
        files = write_safetensors(exportable, folder)
        return {"safetensors": {"status": "pass", "files": [file.name for file in files]}}

    return write_folder(exportable, fill, to=to)


@pytest.fixture(scope="module")
def gpt_export(exportables, tmp_path_factory):
    """With a picture of the curves, so that a push need not draw them."""
    folder = exported(exportables["gpt"], tmp_path_factory.mktemp("gpt") / "export")
    (folder / "run" / "figures" / "curves.png").write_bytes(b"picture")
    seal(folder)
    return folder


@pytest.fixture
def folder(gpt_export, tmp_path):
    return shutil.copytree(gpt_export, tmp_path / "export")


def edit(folder, name, change):
    """Change a file, and have metadata.json say so."""
    path = folder / name
    path.write_bytes(change(path.read_bytes()))
    seal(folder)


def other_weights(data):
    """The same safetensors but for the last bit of the last weight."""
    return data[:-1] + bytes([data[-1] ^ 1])


def test_what_is_pushed_and_pulled_gives_the_same_logits_by_the_same_code_as_the_run(
    hub, exportables, folder, tmp_path
):
    from utils.training.recipes import open_trained

    exportable = exportables["gpt"]
    done = push(folder, "gpt")
    assert done.repo_id == "ada/gpt"
    assert done.tags == ("v0.1.0", exportable.run.id)
    run = pull("ada/gpt", revision="v0.1.0", root=tmp_path / "elsewhere")
    trained = open_trained(run.path)
    ours = exportable.model.state_dict()
    theirs = trained.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        assert torch.equal(exportable.model(ids), trained.model(ids))
    assert trained.step == exportable.step
    mine = open_trained(exportable.run.path).tokenizer
    assert trained.tokenizer.decode(range(20)) == mine.decode(range(20))
    assert trained.tokenizer.vocab_size == mine.vocab_size
    assert run.metrics().equals(exportable.run.metrics())
    assert run.stamp["pulled"]["commit"] == done.commit
    assert run.parent_id == exportable.run.id


@pytest.mark.parametrize("name", ["gpt", "gpt2"])
def test_the_command_line_evaluates_and_continues_a_pulled_run_as_the_run_itself(name, hub, exportables, tmp_path):
    from typer.testing import CliRunner

    from utils.cli import app

    def printed(*arguments):
        done = CliRunner().invoke(app, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
        return done.stdout

    def told(run):
        metrics = json.loads(printed("evaluate", run.path, "--split", "validation"))
        asked = ("--prompt", "the red bird", "--max-new-tokens", 8, "--seed", 1)
        return {key: value for key, value in metrics.items() if key != "run"}, printed("generate", run.path, *asked)

    push(exported(exportables[name], tmp_path / "export"), name)
    assert told(pull(f"ada/{name}", root=tmp_path / "runs")) == told(exportables[name].run)


@pytest.mark.parametrize("name", ["bert", "t5", "classifier", "gpt2"])
def test_every_kind_of_model_comes_back_with_its_weights(name, hub, exportables, tmp_path, monkeypatch):
    from utils.training.recipes import open_trained

    push(exported(exportables[name], tmp_path / "export"), f"lab/{name}")
    run = pull(f"lab/{name}", root=tmp_path / "runs")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = open_trained(run.path).model
    theirs = getattr(model, "model", model).state_dict() if name == "gpt2" else model.state_dict()
    ours = exportables[name].model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_push_is_one_commit_that_holds_the_folder_its_card_and_true_checksums(hub, folder):
    push(folder, "ada/gpt")
    repo = hub.repo("ada/gpt")
    assert len(repo.history()) == 2  # the empty repository's, and ours
    there = repo.files()
    listed = json.loads(there["metadata.json"])["files"]
    assert set(listed) == set(there) - {"metadata.json", ".gitattributes"}
    assert all(hashlib.sha256(there[name]).hexdigest() == facts["sha256"] for name, facts in listed.items())
    for path in (one for one in folder.rglob("*") if one.is_file() and one.name not in ("README.md", "metadata.json")):
        assert there[path.relative_to(folder).as_posix()] == path.read_bytes()
    assert there["README.md"].startswith(b"---\n")
    assert b"![Training curves](training_curves.png)" in there["README.md"]


def test_a_second_push_makes_no_commit_and_no_tag(hub, folder):
    first = push(folder, "ada/gpt")
    again = push(folder, "ada/gpt")
    assert first.committed
    assert not again.committed
    assert again.commit == first.commit
    assert again.tags == first.tags
    assert {one.change for one in again.files} == {"same"}
    assert len(hub.repo("ada/gpt").history()) == 2
    assert set(hub.repo("ada/gpt").tags) == set(first.tags)
    assert "no commit was made" in str(again)


def test_a_run_that_is_exported_anew_is_not_published_anew(hub, exportables, tmp_path):
    """Of two formats; not TorchScript, whose classes get other names each time that a process traces a model."""
    pushed, formats = [], ("state_dict", "onnx")
    for name in ("one", "two"):
        report = export(exportables["gpt"], folder=tmp_path / name, formats=formats)
        assert report.status != "fail", report
        pushed.append(push(tmp_path / name, "ada/gpt"))
    assert [one.committed for one in pushed] == [True, False], pushed[1]
    assert pushed[0].commit == pushed[1].commit
    assert pushed[0].tags == pushed[1].tags
    assert (tmp_path / "one" / "metadata.json").read_bytes() == (tmp_path / "two" / "metadata.json").read_bytes()


def test_new_weights_raise_the_minor_version_and_other_changes_the_patch(hub, folder):
    push(folder, "ada/gpt")
    edit(folder, "requirements.txt", lambda data: data + b"# more\n")
    second = push(folder, "ada/gpt")
    assert second.tags[0] == "v0.1.1"
    assert [one.path for one in second.files if one.change != "same"] == ["requirements.txt", "metadata.json"]
    edit(folder, "model.safetensors", other_weights)
    third = push(folder, "ada/gpt")
    assert third.tags[0] == "v0.2.0"
    edit(folder, "model.safetensors", other_weights)
    assert push(folder, "ada/gpt", tag="v1.0.0").tags[0] == "v1.0.0"
    repo = hub.repo("ada/gpt")
    assert repo.tags["v0.2.0"] == third.commit
    assert repo.tags[third.tags[1]] == repo.history()[0]  # the experiment's own tag names its newest export


def test_versions_are_compared_as_numbers():
    assert latest(["v0.9.0", "v0.10.0", "v0.2.11", "main", "v1"]) == "v0.10.0"
    assert following("v0.10.3", minor=True) == "v0.11.0"
    assert following("v0.10.3", minor=False) == "v0.10.4"
    assert following(None, minor=True) == "v0.1.0"


def test_a_tag_that_is_on_another_commit_is_refused_before_anything_is_sent(hub, folder):
    first = push(folder, "ada/gpt", tag="v1.0.0")
    assert push(folder, "ada/gpt", tag="v1.0.0").commit == first.commit
    assert push(folder, "ada/gpt", tag="v1.0.0", dry_run=True).tags[0] == "v1.0.0"
    edit(folder, "requirements.txt", lambda data: data + b"# more\n")
    hub.requests.clear()
    for dry_run in (True, False):
        with pytest.raises(errors.HubError, match="v1.0.0.*on another commit.*Nothing was sent"):
            push(folder, "ada/gpt", tag="v1.0.0", dry_run=dry_run)
    assert {method for method, _ in hub.requests} <= {"GET", "HEAD"}
    assert hub.repo("ada/gpt").branches["main"] == hub.repo("ada/gpt").tags["v1.0.0"] == first.commit


def test_a_name_without_an_owner_is_the_accounts_in_the_card_and_in_the_command_to_go_on(hub, folder, monkeypatch):
    push(folder, "gpt")
    assert b'snapshot_download("ada/gpt")' in hub.repo("ada/gpt").files()["README.md"]
    for name in ("gpt", "ada/gpt"):
        assert {one.change for one in push(folder, name, dry_run=True).files} == {"same"}
    hub.faults.append(Fault("/commit/", status=403))
    edit(folder, "requirements.txt", lambda data: data + b"# more\n")
    with pytest.raises(errors.NoRight, match=f"python -m utils push {folder} ada/gpt"):
        push(folder, "gpt")
    monkeypatch.setenv("HF_TOKEN", "")
    assert "a push names it OWNER/gpt" in push(folder, "gpt", dry_run=True).note


@pytest.mark.parametrize("content", [b"[1]", b"{", b'{"files": ["NOTES.txt"]}', b"\xff"])
def test_a_metadata_file_that_is_not_of_a_push_has_nothing_removed(content, hub, folder, caplog):
    hub.add("ada/gpt", {"metadata.json": content, "NOTES.txt": b"by hand"})
    assert push(folder, "ada/gpt").committed
    assert hub.repo("ada/gpt").files()["NOTES.txt"] == b"by hand"
    assert "metadata.json of ada/gpt lists no files of an earlier push" in caplog.text


def test_what_an_older_export_brought_goes_and_what_others_added_stays(hub, folder):
    (folder / "old.onnx").write_bytes(b"graph")
    seal(folder)
    push(folder, "ada/gpt")
    api = huggingface_hub.HfApi(endpoint=hub.url, token=TOKEN)
    api.upload_file(path_or_fileobj=b"by hand", path_in_repo="NOTES.txt", repo_id="ada/gpt")
    (folder / "old.onnx").unlink()
    seal(folder)
    done = push(folder, "ada/gpt")
    assert [one.path for one in done.files if one.change == "removed"] == ["old.onnx"]
    there = hub.repo("ada/gpt").files()
    assert "old.onnx" not in there
    assert there["NOTES.txt"] == b"by hand"


def test_a_branch_is_made_where_it_is_missing_and_main_stays_as_it_was(hub, folder):
    push(folder, "ada/gpt")
    main = hub.repo("ada/gpt").branches["main"]
    edit(folder, "requirements.txt", lambda data: data + b"# more\n")
    done = push(folder, "ada/gpt", revision="trial/one")
    repo = hub.repo("ada/gpt")
    assert repo.branches == {"main": main, "trial/one": done.commit}
    assert repo.history("trial/one")[1] == main
    with pytest.raises(errors.RevisionMissing, match="is a tag"):
        push(folder, "ada/gpt", revision="v0.1.0")


def test_a_private_repository_is_not_seen_by_others(hub, folder, tmp_path, monkeypatch):
    push(folder, "ada/secret", private=True)
    assert hub.repo("ada/secret").private
    for token in ("hf_bobbobbobbobbobbobbobbobbob012", ""):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(errors.RepositoryMissing, match="no repository ada/secret, or it is private"):
            pull("ada/secret", root=tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(errors.HubError, match="exists and is private, and private=False"):
        push(folder, "ada/secret", private=False)
    assert pull("ada/secret", root=tmp_path).path.is_dir()


@pytest.mark.parametrize(
    ("token", "repo_id", "kind", "words"),
    [
        ("", "ada/gpt", errors.NoToken, "there is none"),
        ("hf_unknownunknownunknownunknown01", "ada/gpt", errors.BadToken, "does not accept the token"),
        (READER, "ada/gpt", errors.NoRight, "may only read"),
        (TOKEN, "club/gpt", errors.NoRight, "role 'read' in the organisation club"),
        (TOKEN, "strangers/gpt", errors.NoRight, "belongs to no organisation strangers.*one of: lab, club"),
        (TOKEN, "bob/theirs", errors.NotYours, "exists and is bob's.*Push to ada/theirs"),
        (TOKEN, "not an id!", errors.HubError, "no repository's id"),
    ],
)
def test_a_push_that_may_not_be_is_refused_before_anything_is_sent(
    token, repo_id, kind, words, hub, folder, monkeypatch
):
    hub.add("bob/theirs", {"a.txt": b"a"})
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(kind, match=words):
        push(folder, repo_id)
    assert {method for method, _ in hub.requests} <= {"GET"}
    assert set(hub.repos) == {("models", "bob/theirs")}


def test_members_who_may_write_push_to_their_organisation(hub, folder):
    assert push(folder, "lab/gpt", private=True).url == f"{hub.url}/lab/gpt"
    assert hub.repo("lab/gpt").private


def test_a_dry_run_says_what_would_go_and_sends_nothing(hub, folder, monkeypatch):
    push(folder, "ada/gpt")
    edit(folder, "requirements.txt", lambda data: data + b"# more\n")
    (folder / "extra.txt").write_text("extra")
    seal(folder)
    hub.requests.clear()
    told = push(folder, "ada/gpt", dry_run=True)
    assert {method for method, _ in hub.requests} <= {"GET", "HEAD"}
    changed = {one.path: one.change for one in told.files if one.change != "same"}
    assert changed == {"requirements.txt": "changed", "extra.txt": "new", "metadata.json": "changed"}
    assert told.tags[0] == "v0.1.1"
    assert next(one.bytes for one in told.files if one.path == "extra.txt") == 5
    assert "Dry run" in str(told)
    assert "extra.txt" in told._repr_html_()


def test_a_dry_run_needs_neither_a_token_nor_a_network(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    told = push(folder, "ada/gpt", dry_run=True)
    assert {one.change for one in told.files} == {"new"}
    assert "private repository would not be seen" in told.note
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the port of `discard`: nobody listens
    for token in ("", TOKEN):
        monkeypatch.setenv("HF_TOKEN", token)
        for name in ("ada/gpt", "gpt"):
            told = push(folder, name, dry_run=True)
            assert {one.change for one in told.files} == {"unknown" if token or "/" in name else "new"}
            assert ("no answer from the Hub" in told.note) == bool(token or "/" in name)


def test_a_connection_cut_in_mid_upload_leaves_the_old_revision_and_says_how_to_go_on(hub, folder):
    before = push(folder, "ada/gpt").commit
    old = hub.repo("ada/gpt").files()
    edit(folder, "model.safetensors", other_weights)
    cut = Fault("PUT /lfs/", cut_after=1000, times=10_000)
    hub.faults.append(cut)
    with pytest.raises(errors.PushCut) as caught:
        push(folder, "ada/gpt")
    assert cut.times < 10_000
    assert f"main of ada/gpt is at {before[:7]}, as before" in str(caught.value)
    assert f"python -m utils push {folder} ada/gpt" in str(caught.value)
    assert hub.repo("ada/gpt").branches["main"] == before
    assert hub.repo("ada/gpt").files() == old
    hub.faults.clear()
    assert push(folder, "ada/gpt").tags[0] == "v0.2.0"


def test_a_first_push_that_is_cut_leaves_an_empty_repository_and_says_so(hub, folder):
    hub.faults.append(Fault("/commit/", cut_after=0, times=1000))
    with pytest.raises(errors.PushCut, match="ada/gpt was made and is empty"):
        push(folder, "ada/gpt")
    assert set(hub.repo("ada/gpt").files()) == {".gitattributes"}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT /lfs/", cut_after=1000),
        Fault("/commit/", status=503),
        Fault("/preupload/", status=429),
        Fault("POST .*/tag/", cut_after=0),
        Fault("create", status=500),
        Fault("/commit/", after=True),  # it was made, and its answer was lost
    ],
    ids=lambda fault: f"{fault.pattern} {fault.status or 'cut'}{' after' if fault.after else ''}",
)
def test_a_fault_that_passes_is_survived_with_one_commit(fault, hub, folder, tmp_path):
    fault.times = 1
    hub.faults.append(fault)
    done = push(folder, "ada/gpt")
    assert fault.times == 0
    assert done.committed
    assert len(hub.repo("ada/gpt").history()) == 2
    assert hub.repo("ada/gpt").tags["v0.1.0"] == done.commit


def test_a_push_that_was_cut_before_its_tags_gets_them_from_the_next(hub, folder):
    hub.faults.append(Fault("POST .*/tag/", status=503, times=1000))
    with pytest.raises(errors.PushCut, match="The files are published as .*missing are tags"):
        push(folder, "ada/gpt")
    hub.faults.clear()
    done = push(folder, "ada/gpt")
    assert not done.committed
    assert hub.repo("ada/gpt").tags["v0.1.0"] == done.commit


def test_a_refusal_in_mid_push_says_how_the_repository_stands_and_how_to_go_on(hub, folder):
    again = f"python -m utils push {folder} ada/gpt"
    hub.faults.append(Fault("POST .*/tag/", status=403))
    with pytest.raises(errors.NoRight, match=f"files are published as .*missing are tags.*{again}"):
        push(folder, "ada/gpt")
    head = hub.repo("ada/gpt").branches["main"]
    hub.faults.append(Fault("POST .*/tag/", status=403))
    with pytest.raises(errors.NoRight, match=f"files are published as {head[:7]}.*missing are tags.*{again}"):
        push(folder, "ada/gpt")
    edit(folder, "requirements.txt", lambda data: data + b"# more\n")
    hub.faults.append(Fault("/commit/", status=403))
    with pytest.raises(errors.NoRight, match=f"main of ada/gpt is at {head[:7]}, as before.*{again}"):
        push(folder, "ada/gpt")


def test_a_commit_of_someone_else_in_mid_push_is_not_taken_for_ones_own(hub):
    repo = hub.add("ada/gpt", {"a.txt": b"a"})

    def meanwhile(api, remote):
        repo.branches["main"] = repo.keep(hub_server.Commit("theirs", {}, repo.branches["main"]))
        return []

    files = [Outgoing.read("b.txt", b"b")]
    with pytest.raises(errors.HubError, match="someone else committed.*main is at .*, which is not of this push"):
        send(connect(), Push("ada/gpt", again="again"), files, weighty=bool, stale=meanwhile)
    assert repo.files() == {}


def test_an_unreachable_hub_is_said_plainly(hub, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(errors.NetworkDown, match="no answer from the Hub"):
        push(folder, "ada/gpt")
    with pytest.raises(errors.NetworkDown, match="Pulling ada/gpt at main failed"):
        pull("ada/gpt", root=tmp_path)


def test_a_changed_export_is_not_sent(hub, folder):
    path = folder / "model.safetensors"
    path.write_bytes(other_weights(path.read_bytes()))
    with pytest.raises(ExportError, match="model.safetensors is changed"):
        push(folder, "ada/gpt")
    assert hub.requests == []


def test_a_file_with_a_secret_in_it_is_not_sent(hub, folder):
    edit(folder, "run/config.yaml", lambda data: data + f"# {TOKEN}\n".encode())
    with pytest.raises(errors.SecretInside, match="run/config.yaml holds the value of a secret") as caught:
        push(folder, "ada/gpt")
    assert hub.requests == []
    assert TOKEN not in shown(caught.value)


PLANTED = "hf_secondSECONDsecond0123456789"


@pytest.fixture(params=["environment", "login", "another login", "Colab's secrets"])
def planted(request, hub, monkeypatch, tmp_path):
    """PLANTED, as the token of each place that can hold one; beside it none, or another in the environment."""
    path = tmp_path / "stored_tokens"
    monkeypatch.setattr(huggingface_hub.constants, "HF_STORED_TOKENS_PATH", str(path))
    monkeypatch.delenv("HF_TOKEN")
    if request.param == "environment":
        monkeypatch.setenv("HF_TOKEN", PLANTED)
    elif request.param == "login":
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        Path(huggingface_hub.constants.HF_TOKEN_PATH).write_text(f"{PLANTED}\n")
    elif request.param == "another login":
        path.write_text(f"[work]\nhf_token = {PLANTED}\n")
    else:
        userdata = SimpleNamespace(get={"HF_TOKEN": PLANTED}.get, SecretNotFoundError=KeyError)
        userdata.NotebookAccessError = PermissionError
        monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(userdata=userdata))
        monkeypatch.setattr(notebook, "in_colab", lambda: True)
    return PLANTED


def test_a_token_of_any_place_is_neither_pushed_nor_exported(planted, hub, exportables, folder, tmp_path, monkeypatch):
    (folder / "run" / "report.md").write_text(f"My token is {planted}.\n")
    seal(folder)  # nothing has told the token yet
    (tmp_path / "rows.csv").write_text(f"text,label\n{planted},0\n")
    for publish in (lambda: push(folder, "ada/gpt"), lambda: push_dataset(tmp_path / "rows.csv", "ada/rows")):
        monkeypatch.setattr(redact, "_told", set())
        with pytest.raises(errors.SecretInside, match="holds the value of a secret"):
            publish()
    assert hub.requests == []
    monkeypatch.setattr(redact, "_told", set())
    run = Run.open(shutil.copytree(exportables["gpt"].run.path, tmp_path / exportables["gpt"].run.path.name))
    (run.path / "report.md").write_text(f"My token is {planted}.\n")
    folder = exported(replace(exportables["gpt"], run=run), tmp_path / "masked")
    assert (folder / "run" / "report.md").read_text() == "My token is ***.\n"


def shown(error):
    """An error as a traceback that prints every variable of every frame, of its causes and contexts too."""
    found, seen = [], set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        found += list(told.format()) + [str(frame.locals) for frame in told.stack] + [repr(error)]
        error = error.__cause__ or error.__context__
    return "\n".join(found)


def test_the_token_is_found_nowhere(hub, folder, tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG, "utils")
    caplog.set_level(logging.DEBUG, "huggingface_hub")
    api = huggingface_hub.HfApi(endpoint=hub.url, token=TOKEN)
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError) as caught:
        api.repo_info("ada/nothing")
    assert TOKEN in shown(caught.value)  # so `shown` finds what the client's own errors carry
    told = [str(push(folder, "ada/gpt")), push(folder, "ada/gpt", dry_run=True)._repr_html_()]
    run = pull("ada/gpt", root=tmp_path / "runs")
    hub.add("bob/theirs", {"a.txt": b"a"})
    cut = Fault("PUT /lfs/", cut_after=1000, times=1000)
    edit(folder, "model.safetensors", other_weights)
    failures = [
        ("bob/theirs", []),
        ("ada/gpt", [cut]),
        ("ada/gpt", [Fault("/commit/", status=403)]),
        ("ada/gpt", [Fault("whoami", status=401)]),
        ("ada/new", [Fault("create", status=500, times=1000)]),
        ("ada/gpt", [Fault(".", status=503, times=1000)]),
    ]
    for repo_id, hub.faults in failures:
        with pytest.raises(errors.HubError) as caught:
            push(folder, repo_id)
        told.append(shown(caught.value))
    out, err = capfd.readouterr()
    texts = [*told, out, err, caplog.text]
    assert not [text for text in texts if TOKEN in text]
    held = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert held == []
    contents = [content for repo in hub.repos.values() for content in repo.files().values()]
    assert not [one for one in (*contents, *hub.objects.values()) if TOKEN.encode() in one]
    assert run.path.is_dir()


def test_pulled_twice_it_is_the_same_folder_and_asks_for_the_files_once(hub, folder, tmp_path):
    push(folder, "ada/gpt")
    first = pull("ada/gpt", root=tmp_path / "runs")
    times = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    second = pull("ada/gpt", root=tmp_path / "runs")
    assert second.path == first.path
    assert {path: path.stat().st_mtime_ns for path in second.path.rglob("*")} == times
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [first.path.name]


def test_a_pulled_run_is_not_taken_up_in_place_of_a_new_one(hub, exportables, folder, tmp_path):
    from utils.training.recipe import Recipe

    push(folder, "ada/gpt")
    pulled = pull("ada/gpt", root=tmp_path / "runs")
    recipe = Recipe.load(pulled.path / "config.yaml")
    assert Run.start(tmp_path / "runs", recipe.name, recipe).id != pulled.id


def test_a_revision_that_is_not_there_is_said(hub, folder, tmp_path):
    push(folder, "ada/gpt")
    with pytest.raises(errors.RevisionMissing, match="ada/gpt has no such revision"):
        pull("ada/gpt", revision="v9.9.9", root=tmp_path)


def test_an_artefact_that_was_changed_on_the_way_is_not_used(hub, folder, tmp_path):
    push(folder, "ada/gpt")
    weights = hub.repo("ada/gpt").files()["model.safetensors"]
    api = huggingface_hub.HfApi(endpoint=hub.url, token=TOKEN)
    changed = {"repo_id": "ada/gpt", "path_in_repo": "model.safetensors"}
    api.upload_file(path_or_fileobj=other_weights(weights), **changed)
    with pytest.raises(errors.Damaged, match="model.safetensors is changed"):
        pull("ada/gpt", root=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))
    assert pull("ada/gpt", revision="v0.1.0", root=tmp_path / "runs").path.is_dir()


def test_pickled_weights_are_read_from_trusted_repositories_alone(hub, exportables, folder, tmp_path):
    from utils.training.recipes import open_trained

    write_state_dict(exportables["gpt"], folder)
    (folder / "model.safetensors").unlink()
    seal(folder)
    push(folder, "ada/gpt")
    with pytest.raises(errors.HubError, match="trust=True"):
        pull("ada/gpt", root=tmp_path / "runs")
    assert not list((tmp_path / "cache").rglob("state_dict.pt"))
    theirs = open_trained(pull("ada/gpt", root=tmp_path / "runs", trust=True).path).model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in exportables["gpt"].model.state_dict().items())


def test_a_pulled_recipe_does_not_let_code_run_unless_trusted(hub, folder, tmp_path):
    edit(folder, "run/config.yaml", lambda data: data.replace(b"trust_code: false", b"trust_code: true"))
    assert b"trust_code: true" in (folder / "run" / "config.yaml").read_bytes()
    push(folder, "ada/gpt")
    assert pull("ada/gpt", root=tmp_path).config["source"]["trust_code"] is False
    assert pull("ada/gpt", root=tmp_path, trust=True).config["source"]["trust_code"] is True


@pytest.mark.parametrize("name", ["./here.py", "file:/tmp/here.py", "/tmp/models"])
def test_a_pulled_recipe_that_names_code_of_this_machine_is_refused(name, hub, folder, tmp_path):
    edit(folder, "run/config.yaml", lambda data: data.replace(b"name: ''", f"name: {name}".encode()))
    assert f"name: {name}".encode() in (folder / "run" / "config.yaml").read_bytes()
    push(folder, "ada/gpt")
    with pytest.raises(errors.HubError, match="names code on this machine"):
        pull("ada/gpt", root=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


def test_code_beside_a_tokenizer_is_not_brought_along(hub, folder, tmp_path):
    (folder / "tokenizer" / "evil.py").write_text("raise SystemExit")
    seal(folder)
    push(folder, "ada/gpt")
    run = pull("ada/gpt", root=tmp_path / "runs")
    assert not list(run.path.rglob("*.py"))


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "", "a/b", None])
def test_a_stamp_cannot_send_a_pulled_run_elsewhere(name, hub, folder, tmp_path):
    def rename(data):
        return json.dumps({**json.loads(data), "name": name}).encode()

    edit(folder, "run/env_stamp.json", rename)
    push(folder, "ada/gpt")
    with pytest.raises(errors.HubError, match="would make no folder"):
        pull("ada/gpt", root=tmp_path / "deep" / "runs")
    assert not (tmp_path / "deep").exists()


def test_a_repository_of_another_kind_is_not_pulled(hub, tmp_path):
    hub.add("bob/plain", {"config.json": b"{}", "model.safetensors": b""})
    with pytest.raises(errors.HubError, match="was not published from a run.*hf:bob/plain"):
        pull("bob/plain", root=tmp_path)


def test_data_are_pushed_once_and_rows_of_an_older_push_go(hub, tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\na,0\nb,1\n")
    (folder / "train-2.csv").write_text("text,label\nc,0\n")
    first = push_dataset(folder, "lab/birds", private=True, license="CC0-1.0")
    assert first.tags == ("v0.1.0",)
    assert not push_dataset(folder, "lab/birds", license="CC0-1.0").committed
    (folder / "train-2.csv").unlink()
    assert push_dataset(folder, "lab/birds", license="CC0-1.0").tags == ("v0.2.0",)
    repo = hub.repo("lab/birds", "dataset")
    assert repo.private
    assert set(repo.files()) == {".gitattributes", ".published.json", "README.md", "train.csv"}
    assert b"license: cc0-1.0" in repo.files()["README.md"]


def test_data_that_no_push_brought_stay_in_the_repository(hub, tmp_path, caplog):
    folder = tmp_path / "birds"
    folder.mkdir()
    for name in ("train.csv", "old.csv"):
        (folder / name).write_text("text,label\na,0\n")
    hub.add("ada/birds", {"by-hand.parquet": b"rows of someone else"}, "dataset")
    push_dataset(folder, "ada/birds")
    (folder / "old.csv").unlink()
    done = push_dataset(folder, "ada/birds")
    assert [one.path for one in done.files if one.change == "removed"] == ["old.csv"]
    there = hub.repo("ada/birds", "dataset").files()
    assert there["by-hand.parquet"] == b"rows of someone else"
    assert "old.csv" not in there
    assert "that no push listed stay there: by-hand.parquet" in caplog.text


def test_a_single_file_of_data_is_pushed_by_its_name(hub, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    push_dataset(tmp_path / "rows.jsonl", "rows")
    assert hub.repo("ada/rows", "dataset").files()["rows.jsonl"] == b'{"text": "a"}\n'
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.HubError, match="holds no data"):
        push_dataset(tmp_path / "empty", "ada/none")
