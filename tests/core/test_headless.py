"""A notebook that fails without a browser says where and why in a few plain lines, and keeps its executed copy."""

import nbformat
import pytest

from utils.core.headless import LAST, NotebookError, execute


def test_a_failing_cell_is_told_with_the_end_of_its_error_without_colours(tmp_path):
    deep = "def down(n):\n    if n == 0:\n        raise ValueError('the reason')\n    down(n - 1)\n\ndown(30)"
    cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell("x = 1"),
        nbformat.v4.new_code_cell(deep),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "broken.ipynb")
    output = tmp_path / "made" / "executed.ipynb"
    with pytest.raises(NotebookError) as caught:
        execute(tmp_path / "broken.ipynb", output, {})
    text = str(caught.value)
    assert "broken.ipynb: cell 2 (of 3, from 0) failed" in text
    assert "    down(30)" in text  # the cell
    assert "ValueError: the reason" in text
    assert "\x1b" not in text
    failed = output.with_name("executed-failed.ipynb")
    assert str(failed) in text
    assert "earlier run" not in text
    assert not output.exists()
    assert len(text.splitlines()) <= LAST + len(deep.splitlines()) + 8
    errors = nbformat.read(failed, as_version=4).cells[2].outputs
    assert errors[-1]["ename"] == "ValueError"


def test_a_run_that_fails_leaves_the_copy_of_the_last_good_one(tmp_path):
    notebook, output = tmp_path / "sum.ipynb", tmp_path / "sum-executed.ipynb"
    cell = nbformat.v4.new_code_cell("import os\nprint(1 // int(os.environ['NB_BY']))")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)
    execute(notebook, output, {"by": "1"})
    good = output.read_bytes()
    with pytest.raises(NotebookError, match="The copy of an earlier run stays as it was") as caught:
        execute(notebook, output, {"by": "0"})
    assert output.read_bytes() == good
    failed = tmp_path / "sum-executed-failed.ipynb"
    assert str(failed) in str(caught.value)
    assert nbformat.read(failed, as_version=4).cells[0].outputs[-1]["ename"] == "ZeroDivisionError"
