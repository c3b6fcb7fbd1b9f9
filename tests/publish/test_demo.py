"""The Gradio form answers as the handler does, and where Gradio is absent that is said."""

from __future__ import annotations

import json
import shutil
import urllib.parse
import urllib.request

import pytest

from utils.publish import demo
from utils.publish.folder import ExportError, seal, write_folder
from utils.publish.handling.checks import FolderError
from utils.publish.handling.endpoint import EndpointHandler
from utils.publish.loading import load
from utils.publish.weights import write_safetensors


@pytest.fixture(scope="module")
def folder(exportables, tmp_path_factory):
    def fill(place):
        write_safetensors(exportables["gpt"], place)
        return {}

    return write_folder(exportables["gpt"], fill, to=tmp_path_factory.mktemp("demo") / "export")


def test_the_form_gives_the_handlers_answer_and_its_errors(folder):
    gradio = pytest.importorskip("gradio")
    form = demo.form_of(folder)
    parameters = {"max_new_tokens": 5, "temperature": 0.7, "seed": 3}
    text = EndpointHandler(folder, load=load).metadata["name"][:1]
    alone = EndpointHandler(folder, load=load)({"inputs": text, "parameters": parameters})
    assert json.loads(form.fn(text, json.dumps(parameters))) == alone
    with pytest.raises(gradio.Error, match="max_new_tokens"):
        form.fn(text, '{"max_new_tokens": -1}')
    with pytest.raises(gradio.Error, match="Expecting"):
        form.fn(text, "{")


def test_the_form_reads_only_what_metadata_lists_and_no_pt2(folder, tmp_path):
    pytest.importorskip("gradio")
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    (changed / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ExportError, match=r"config\.json has 2 bytes"):
        demo.form_of(changed)
    graph = tmp_path / "graph"
    graph.mkdir()
    (graph / "model.pt2").write_bytes(b"never read")
    seal(graph, {"format_version": 1, "name": "graph", "kind": "causal_lm", "loader": "weights"})
    with pytest.raises(FolderError, match="can run code"):
        demo.form_of(graph)


def test_the_form_is_served_on_this_machine(folder):
    pytest.importorskip("gradio")
    form = demo.demo(folder)
    try:
        page = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(form.local_url).read().decode()
        assert form.share_url is None
        assert urllib.parse.urlsplit(form.local_url).hostname == "127.0.0.1"
        assert form.title in page
    finally:
        form.close()


def test_without_gradio_the_server_is_named(folder, monkeypatch):
    assert "gradio is not ticked in the settings" in str(demo.demo(folder, wanted=False))
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert f"python -m utils serve {folder}" in str(demo.demo(folder))
