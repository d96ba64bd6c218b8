"""A crash while a manifest is written: its head never names a chunk that is not there."""

from pathlib import Path

import pytest
from crash_runs import inject_crashes

CHUNK, HEAD, GONE = "file of the workspace", "rename head.json", "chunk that is gone"


@pytest.mark.slow_lane
def test_chunks_come_before_the_head_that_names_them_and_go_after_it_wherever_the_run_dies(tmp_path: Path) -> None:
    undisturbed, *cases = inject_crashes(tmp_path, "crash_manifest", {})

    names = undisturbed["failpoints"]
    head = names.index(HEAD)
    assert names[:head].count(CHUNK) == 4, "two partitions, and the chunks of March and April"
    assert names[head:].count(GONE) == 2, "the chunks of January and of the old March"
    assert GONE not in names[:head]
    assert CHUNK not in names[head:]
    assert len(cases) > len(names), "before each, some half done, and after the last"
