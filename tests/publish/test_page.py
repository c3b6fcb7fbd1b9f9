"""The page that a server shows: what a person meets in a real browser."""

import json
import time

import pytest

from utils.publish.handling.endpoint import EndpointHandler
from utils.publish.serve import serving

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")


@pytest.fixture
def visit(browser):
    """Opens a server's page; fails at the end where it asked anyone else, or its script broke."""
    contexts, said, asked = [], [], []

    def open_page(server):
        context = browser.new_context()
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url)
        page.wait_for_selector("#settings input")
        return page

    yield open_page
    for context in contexts:
        context.close()
    # The browser's own lines for an answer that is an error, and for a script that the policy refuses.
    assert [one for one in said if "422" not in one and "Content Security Policy" not in one] == []
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:"))] == []


def send(page, text, **settings):
    page.fill("#inputs", text)
    for name, value in settings.items():
        page.fill(f"#settings input[name={name}]", str(value))
    page.click("#send")
    page.wait_for_selector("#stop:disabled")
    page.wait_for_selector("#send:enabled")


def test_a_prompt_is_typed_and_its_text_is_streamed(visit, folders):
    parameters = {"max_new_tokens": 15, "temperature": 1.2, "seed": 7}
    expected = EndpointHandler(folders["gpt"])({"inputs": "the red", "parameters": parameters})[0]["generated_text"]
    with serving(folders["gpt"]) as server:
        page = visit(server)
        assert page.inner_text("h1") == server.info["name"]
        with page.expect_response(server.url + "/") as answered:
            send(page, "the red", **parameters)
        assert answered.value.headers["content-type"].startswith("text/event-stream")
        assert page.text_content("#answer") == expected
        assert page.text_content("#error") == ""


def test_an_error_is_shown_plainly_and_the_next_request_clears_it(visit, folders):
    with serving(folders["gpt"]) as server:
        page = visit(server)
        send(page, "the red", temperature="hot")
        assert page.text_content("#error") == "temperature='hot'; expected a number from 0 to 100."
        send(page, "the red", temperature="", max_new_tokens=3)
        assert page.text_content("#error") == ""
        assert len(page.text_content("#answer")) == 3


def test_a_long_answer_is_stopped(visit, folders, monkeypatch):
    inner = EndpointHandler.decode

    def slow(self, rows):
        for advanced in inner(self, rows):
            yield advanced
            time.sleep(0.02)

    monkeypatch.setattr(EndpointHandler, "decode", slow)
    with serving(folders["gpt"]) as server:
        page = visit(server)
        page.fill("#inputs", "the red")
        page.fill("#settings input[name=max_new_tokens]", "1024")
        page.click("#send")
        page.wait_for_selector("#answer:not(:empty)")
        page.click("#stop")
        page.wait_for_selector("#send:enabled")
        assert 0 < len(page.text_content("#answer")) < 1024
        assert page.text_content("#error") == ""


def test_markup_that_a_model_says_or_an_error_repeats_stays_text(visit, folders):
    evil = "<img src=x onerror=\"document.title='owned'\">"
    with serving(folders["gpt"]) as server:
        page = visit(server)

        def answer(route):
            event = json.dumps({"token": {"text": evil}})
            route.fulfill(status=200, content_type="text/event-stream", body=f"data:{event}\n\n")

        page.route(server.url + "/", answer)
        send(page, "the")
        assert page.text_content("#answer") == evil
        page.unroute(server.url + "/")
        send(page, "the", seed=evil)
        assert evil[:20] in page.text_content("#error")
        assert page.locator("img").count() == 0
        assert page.title() == server.info["name"]


def test_the_page_may_run_no_script_but_its_own(visit, folders):
    """Markup that slipped into the page would still do nothing: the policy names the one script by its hash."""
    with serving(folders["gpt"]) as server:
        page = visit(server)
        refused = page.evaluate(
            """() => new Promise(resolve => {
                document.addEventListener("securitypolicyviolation", event => resolve(event.violatedDirective));
                const script = document.createElement("script");
                script.textContent = "document.title = 'owned'";
                document.body.append(script);
            })"""
        )
        assert refused.startswith("script-src")
        assert page.title() == server.info["name"]


@pytest.mark.parametrize(
    ("name", "text", "told"), [("classifier", "the red bird", "%  red"), ("bert", "the [MASK] bird", "bird")]
)
def test_the_other_kinds_are_tried_too(visit, folders, name, text, told):
    with serving(folders[name]) as server:
        page = visit(server)
        send(page, text)
        assert told in page.text_content("#answer")
        assert page.text_content("#error") == ""


def test_grids_are_drawn_and_a_grid_is_reconstructed(visit, vae_folder):
    with serving(vae_folder) as server:
        page = visit(server)
        send(page, "", n=3, seed=0)
        assert page.locator("#grids canvas").count() == 3
        assert '"seed":0' in page.text_content("#answer")
        send(page, "[[1, 2], [3, 4]]")
        assert page.locator("#grids canvas").count() == 1
        send(page, "[[1, 2], [3")
        assert "JSON" in page.text_content("#error")
