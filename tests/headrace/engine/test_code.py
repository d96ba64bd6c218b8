"""Code fingerprints: what Python would run decides them, and no imported file can be forgotten."""

import io
import tokenize
from pathlib import Path

import pytest

from headrace.engine.code_hash import STRING_OR_COMMENT, code_hash, fingerprint, source_code

PLAIN = 'import os\n\n\ndef f(x: int) -> str:\n    return f"{x} # no comment"\n'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('"""What it is for."""\n\n' + PLAIN, id="a module's docstring"),
        pytest.param(
            PLAIN.replace("int) -> str:", 'int) -> str:\n    """Say x.\n\n    At length.\n    """'), id="a docstring"
        ),
        pytest.param(PLAIN.replace("import os\n", "import os  # why\n# and how\n"), id="comments"),
        pytest.param(PLAIN.replace("\n\n\n", "\n\n\n\n   \n"), id="blank lines"),
    ],
)
def test_what_is_not_code_does_not_count(text: str) -> None:
    assert code_hash(text) == code_hash(PLAIN)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(PLAIN.replace("# no comment", "# comment"), id="a text that looks like a comment"),
        pytest.param(PLAIN.replace("import os", "import sys"), id="an import"),
        pytest.param(PLAIN + "X = '''\nlines'''\n", id="a text of several lines"),
        pytest.param(PLAIN.replace("    return", "    x += 1\n    return"), id="a statement"),
    ],
)
def test_what_is_code_counts(text: str) -> None:
    assert code_hash(text) != code_hash(PLAIN)


def test_attribute_docstrings_of_a_class_do_not_count_but_texts_in_functions_do() -> None:
    bare = "class A:\n    x = 1\n    y = 2\n"
    told = 'class A:\n    """What."""\n\n    x = 1\n    """The first."""\n    y = 2\n'

    assert code_hash(told) == code_hash(bare)
    assert code_hash("def f():\n    g()\n    'late'\n") != code_hash("def f():\n    g()\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace of five modules: a imports b and the package c, c imports d relatively, e stands alone."""
    files = {
        "pipelines/__init__.py": "",
        "pipelines/a.py": "import polars\nfrom pipelines import c\n\ndef f():\n    from pipelines.b import g\n",
        "pipelines/b.py": "g = 1\n",
        "pipelines/c/__init__.py": "from .d import h\n",
        "pipelines/c/d.py": "from pipelines import a\nh = 2\n",
        "pipelines/e.py": "e = 3\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_imports_are_followed_also_inside_functions_relative_ones_and_round_in_circles(root: Path) -> None:
    found = source_code(["pipelines.a"], root).files

    assert list(found) == [
        "pipelines/__init__.py",
        "pipelines/a.py",
        "pipelines/b.py",
        "pipelines/c/__init__.py",
        "pipelines/c/d.py",
    ]


def test_a_change_far_down_changes_the_fingerprint_and_one_beside_does_not(root: Path) -> None:
    before = fingerprint(source_code(["pipelines.a"], root).files)

    (root / "pipelines/e.py").write_text("e = 4\n")
    beside = fingerprint(source_code(["pipelines.a"], root).files)
    (root / "pipelines/c/d.py").write_text("from pipelines import a\nh = 22\n")
    below = fingerprint(source_code(["pipelines.a"], root).files)

    assert beside == before
    assert below != before


def test_modules_of_others_are_not_ours_to_hash(root: Path) -> None:
    assert source_code(["polars", "pipelines_of_others.x"], root).files == {}


def _by_tokenize(text: str) -> list[tuple[int, int]]:
    """Where Python's own tokenizer sees a comment begin."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token.start for token in tokens if token.type == tokenize.COMMENT]


def test_what_counts_as_a_comment_is_what_python_takes_for_one() -> None:
    here = Path(__file__).resolve().parents[3]
    texts = [
        path.read_text("utf-8")
        for folder in ("headrace", "pipelines", "tests")
        for path in (here / folder).rglob("*.py")
    ]
    texts.append('a = \'\\\'# no\' + r"\\" # no" + \'\'\'# no \' # no\'\'\' # yes\nb = """\\""" # no """\n')

    for text in texts:
        starts = [match.start() for match in STRING_OR_COMMENT.finditer(text) if match["comment"]]
        lines = [(text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at) - 1) for at in starts]
        assert lines == _by_tokenize(text)
