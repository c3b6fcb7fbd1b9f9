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
    assert str(output) in text
    assert len(text.splitlines()) <= LAST + len(deep.splitlines()) + 8
    errors = nbformat.read(output, as_version=4).cells[2].outputs
    assert errors[-1]["ename"] == "ValueError"
