"""Code fingerprints: what Python would run decides them, and no imported file can be forgotten."""

import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import packages_distributions, version
from pathlib import Path
from unittest.mock import ANY

import minimal_dataset
import pytest

from headrace.engine import code_hash as code_hash_module
from headrace.engine.code_hash import STRING_OR_COMMENT, SourceCode, fingerprint, read_code, source_code

PLAIN = 'import os\n\n\ndef f(x: int) -> str:\n    return f"{x} # no comment"\n'


def code_hash(text: str) -> str:
    return read_code(text.encode(), Path("module.py"))[0]


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


# Packages beside the project


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package on Python's path that no index released, imported by a project's module."""
    (tmp_path / "lib/shared_rules").mkdir(parents=True)
    (tmp_path / "lib/shared_rules/__init__.py").write_text("from shared_rules.rates import RATE\n")
    (tmp_path / "lib/shared_rules/rates.py").write_text("RATE = 2\n")
    (tmp_path / "project/pipelines").mkdir(parents=True)
    (tmp_path / "project/pipelines/a.py").write_text(
        "from shared_rules import RATE\nimport polars, sklearn.linear_model\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    code_hash_module.import_folder.cache_clear()
    yield tmp_path
    code_hash_module.import_folder.cache_clear()


@pytest.mark.slow
def test_a_package_that_no_index_released_is_hashed_by_file(package: Path) -> None:
    before = source_code(["pipelines.a"], package / "project")

    (package / "lib/shared_rules/rates.py").write_text("RATE = 33\n")
    after = source_code(["pipelines.a"], package / "project")

    assert list(before.packages) == ["shared_rules/__init__.py", "shared_rules/rates.py"]
    changed = [name for name in before.packages if before.packages[name] != after.packages[name]]
    assert changed == ["shared_rules/rates.py"]


def test_a_released_distribution_counts_by_its_version_under_the_name_that_pip_knows(package: Path) -> None:
    libraries = source_code(["pipelines.a"], package / "project").libraries

    assert libraries == {"polars": version("polars"), "scikit-learn": version("scikit-learn")}


def test_distributions_are_those_that_python_s_own_search_finds_for_a_module() -> None:
    """The search uses two private functions of `importlib.metadata`, which decide what a distribution provides."""
    found = packages_distributions()

    for top in ("yaml", "sklearn", "google", "dateutil", "_cffi_backend", "__main__", "no_such_module"):
        names = [one.name for one in code_hash_module.find_distributions(top)]
        assert names == sorted(set(found.get(top, ()))), top


def test_a_distribution_installed_from_a_path_or_a_repository_is_hashed_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `pip install ./shared` and `pip install git+…` leave it: files beside those of released distributions."""
    site = tmp_path / "site-packages"
    (site / "shared_rules").mkdir(parents=True)
    (site / "shared_rules/__init__.py").write_text("RATE = 2\n")
    info = site / "shared_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shared-rules\nVersion: 1.0\n")
    (info / "RECORD").write_text("shared_rules/__init__.py,,\n")
    (tmp_path / "project/pipelines").mkdir(parents=True)
    (tmp_path / "project/pipelines/a.py").write_text("import shared_rules\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(code_hash_module, "_site_packages", lambda: (site.resolve(),))

    def found() -> SourceCode:
        code_hash_module.import_folder.cache_clear()
        code_hash_module.find_distributions.cache_clear()
        return source_code(["pipelines.a"], tmp_path / "project")

    released = found()
    (info / "direct_url.json").write_text('{"url": "https://example.com/rules.git", "vcs_info": {"vcs": "git"}}')
    unreleased = found()

    assert (released.packages, released.libraries) == ({}, {"shared-rules": "1.0"})
    assert (list(unreleased.packages), unreleased.libraries) == (["shared_rules/__init__.py"], {})
    code_hash_module.import_folder.cache_clear()
    code_hash_module.find_distributions.cache_clear()


def test_the_engine_and_the_standard_library_do_not_count(root: Path) -> None:
    (root / "pipelines/a.py").write_text("import json\nfrom headrace.dataset import Source\n")
    (root / "headrace").mkdir()
    (root / "headrace/__init__.py").write_text("x = 1\n")
    (root / "headrace/dataset.py").write_text("class Source: ...\n")

    assert source_code(["pipelines.a"], root) == SourceCode({"pipelines/a.py": ANY}, {}, {})


# Declarations


def test_a_declaration_knows_the_module_that_makes_it_and_the_helpers_between(tmp_path: Path) -> None:
    (tmp_path / "helpers_of_tests.py").write_text(
        "from headrace.dataset import Input, FeatureTable\nfrom datetime import timedelta\n"
        "def table(name):\n    return FeatureTable(name, ('k',), {'a': Input('validated/a')}, None, {}, timedelta(1))\n"
    )
    (tmp_path / "declares_for_tests.py").write_text("from helpers_of_tests import table\nTABLE = table('t')\n")
    script = "from declares_for_tests import TABLE; print(*TABLE.modules)"

    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["helpers_of_tests", "declares_for_tests"]


def test_a_declaration_changed_by_replace_keeps_where_it_was_made() -> None:
    assert replace(minimal_dataset.SALES, max_rejected_share=0.1).modules == ("minimal_dataset",)


def _by_tokenize(text: str) -> list[tuple[int, int]]:
    """Where Python's own tokenizer sees a comment begin."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token.start for token in tokens if token.type == tokenize.COMMENT]


@pytest.mark.slow
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
