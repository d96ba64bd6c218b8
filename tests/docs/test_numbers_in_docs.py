"""A number that a page states is the one in the code.

Constants are read from the source, so no page has to import Feast or Airflow here.
"""

import ast
from datetime import timedelta
from typing import Any

import pytest
from workspaces import REPOSITORY

NUMBERS = [
    ("serving", "for up to {} others", "publish/verification.py", "SAMPLE"),
    ("serving", "{} keys of each view", "publish/verification.py", "SERVED"),
    ("serving", "{} keys per script", "feast/online_stores/redis.py", "BATCH"),
    ("serving", "waits at most {} seconds for a lock", "feast/online_stores/postgresql.py", "LOCK_S"),
    ("serving", "{} features per table in SQLite", "feast/online_stores/sqlite.py", "max_features"),
    ("serving", "{} in PostgreSQL", "feast/online_stores/postgresql.py", "max_features"),
    ("labeling", "Once there are {} labels", "label/labeling_functions.py", "ENOUGH_ANSWERS"),
    ("labeling", "events are written {} at a time", "label/annotation_log.py", "BUFFERED_EVENTS"),
    ("training-data", "`memory_mb` ({raw})", "retrieve/options.py", "memory_mb"),
    ("operations", "more than {raw} MiB unpacked", "validate/unreadable.py", "MAX_BYTES"),
    ("operations", "unpacked, {} columns", "validate/unreadable.py", "MAX_COLUMNS"),
    ("operations", "younger than {raw} hours (`--hours`)", "maintenance/gc.py", "MIN_AGE_HOURS"),
    ("start-a-project", "({} rows and", "templates/object_sample.py", "MOST_ROWS"),
    ("start-a-project", "{raw} MiB in all) or", "templates/object_sample.py", "MOST_BYTES"),
    ("start-a-project", "or {} rows of a table", "templates/table_sample.py", "MOST_ROWS"),
    ("start-a-project", "from fewer than {} values", "templates/inference.py", "MIN_ROWS"),
    ("table-format", "between 1 and {}.", "storage/field_ids.py", "MAX_FIELD_ID"),
    ("table-format", "of 1 to {} bytes of UTF-8", "storage/partition_names.py", "MAX_NAME_BYTES"),
]
"""Page, words around the number, file of the engine, name of the constant."""

IN_WORDS = [
    ("labeling", "Up to a hundred changed tasks", "label/label_studio/tasks.py", "INLINE_LIMIT", 100),
    ("labeling", "ranges of a thousand tasks", "label/sync.py", "RANGE_SIZE", 1000),
    ("labeling", "starting ten minutes earlier", "label/sync.py", "OVERLAP", timedelta(minutes=10)),
    ("labeling", "and at least three, are deleted", "label/sync.py", "FEW_ANSWERS", 3),
    ("labeling", "with a confidence below one half", "label/request_more.py", "MIN_CONFIDENCE", 0.5),
    ("training-data", "about four million rows at a time", "retrieve/splits.py", "AT_ONCE", 4_000_000),
    ("why", "by others after 15 minutes", "runs/sender_lock.py", "EXPIRES_S", 900),
    ("why", "with three or fewer", "project/executors.py", "INLINE_LIMIT", 3),
    ("operations", "a plan of more than three partitions", "project/executors.py", "INLINE_LIMIT", 3),
    ("operations", "tried again up to three times", "project/executors.py", "RETRIES", 3),
    ("operations", "one line every ten seconds", "storage/progress_log.py", "INTERVAL_S", 10),
    ("operations", "partial writes older than an hour", "maintenance/stale_files.py", "MIN_AGE_S", 3600),
    ("operations", "that were started a day ago", "maintenance/stale_files.py", "UPLOAD_MIN_AGE_HOURS", 24),
    ("operations", "exit code says whether", "errors.py", "TRANSIENT_EXIT_CODE", 75),
    ("start-a-project", "up to twelve files", "templates/object_sample.py", "MOST_FILES", 12),
    ("start-a-project", "set of up to three columns", "templates/key_inference.py", "MAX_KEY_COLUMNS", 3),
    ("start-a-project", "more than 30 % repeat", "templates/dataset_draft.py", "MAX_DUPLICATES", 0.3),
]
"""The same of numbers that a page writes as words, with what the words mean."""


def text_of(page: str) -> str:
    return " ".join((REPOSITORY / "docs" / f"{page}.md").read_text("utf-8").split())


def constant(file: str, name: str) -> Any:  # noqa: ANN401  a number or a duration
    """What a module or a class gives that name."""
    for node in ast.walk(ast.parse((REPOSITORY / "headrace" / file).read_text("utf-8"))):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        pairs = [(target, getattr(node, "value", None)) for target in targets]
        if isinstance(targets[0], ast.Tuple) and isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            pairs = [*zip(targets[0].elts, node.value.elts, strict=True)]
        for target, value in pairs:
            if isinstance(target, ast.Name) and target.id == name and value is not None:
                return eval(ast.unparse(value), {"timedelta": timedelta})  # noqa: S307  a constant of ours
    raise AssertionError(f"headrace/{file} defines no {name}")


@pytest.mark.parametrize(("page", "words", "file", "name"), NUMBERS, ids=[f"{it[0]} {it[3]}" for it in NUMBERS])
def test_a_page_states_the_number_of_the_code(page: str, words: str, file: str, name: str) -> None:
    number = constant(file, name)
    if "MiB" in words:
        number /= 1 << 20

    assert words.format(f"{number:,.0f}", raw=f"{number:.0f}") in text_of(page)


@pytest.mark.parametrize(
    ("page", "words", "file", "name", "meant"), IN_WORDS, ids=[f"{it[0]} {it[3]}" for it in IN_WORDS]
)
def test_words_on_a_page_mean_the_number_of_the_code(
    page: str, words: str, file: str, name: str, meant: object
) -> None:
    assert words in text_of(page)
    assert constant(file, name) == meant
