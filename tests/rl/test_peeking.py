"""Ways out of a program are seen where they are named, and where a name is made up; its own names are its own."""

import ast

import pytest

from utils.rl.peeking import peeks

MATCH = "match x:\n    case object({}=y):\n        pass"


@pytest.mark.parametrize(
    "program",
    [
        "g = getattr\ng((), '__cl' + 'ass__')",
        "list(map(getattr, [()], ['__cl' + 'ass__']))",
        "setattr(x, 'gi_' + 'frame', 0)",
        "delattr(x, *names)",
        "from operator import attrgetter",
        "import operator\noperator.attrgetter('__cl' + 'ass__')(())",
        "('{0.__cl' + 'ass__}').format(())",
        "str.format('{0.' + name + '}', x)",
        MATCH.format("gi_frame"),
        MATCH.format("_sys"),
        MATCH.format("__class__"),
        "class A:\n    __match_args__ = ('gi_' + 'frame',)",
        "def f():\n    'data'\nx = f.__doc__",
        # A name of its own in one place is the built-in one in another.
        "def f(eval):\n    return eval\nx = eval(text)",
        "class A:\n    eval = 0\nx = eval(text)",
        "class A:\n    e = eval\n    eval = 0",
        "e = eval\neval = 0",
        "def f():\n    def g(getattr):\n        pass\n    return getattr((), text)",
        "def f():\n    global open\n    open = open",
    ],
)
def test_ways_out_are_seen(program):
    assert peeks(ast.parse(program))


@pytest.mark.parametrize(
    "program",
    [
        "getattr(grid, 'copy', None)",
        "setattr(board, 'rows', grid)",
        "'{} of {}'.format(1, 2)",
        MATCH.format("rows"),
        "def f(cells, open):\n    return [cell for cell in cells if cell in open]",
        "def f():\n    vars = {}\n    def g():\n        return vars\n    return g()",
        "def f():\n    '''__class__ of eval'''\n    return 1",
        "if __name__ == '__main__':\n    pass",
        "modules = [1]\nx = modules[0]",
    ],
)
def test_what_leads_nowhere_is_let_be(program):
    assert not peeks(ast.parse(program))


def test_own_names_in_a_program_too_tangled_to_tell_are_not_believed():
    deep = "-" * 2000 + "1"
    try:
        tree = ast.parse(f"def f(eval):\n    return eval + {deep}")
    except (MemoryError, RecursionError):
        pytest.skip("this Python does not parse it at all")
    assert peeks(tree)
