"""Whatever dies, wherever: readers see the old state or the new one, whole; one more run gives the undisturbed bytes.

Every side effect of validate, transform and version is a numbered point. `make faults` dies at each of them, `make
test` at some, in both ways: before the effect, and with it half done.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers import S3

SCRIPT = Path(__file__).with_name("crashes.py")


def rehearse(folder: Path, s3: S3, how: str, every: int) -> list[dict[str, object]]:
    """A line for each case."""
    remote = folder / "remote.json"
    keys = {"endpointurl": s3.endpoint, "access_key_id": s3.access_key, "secret_access_key": s3.secret_key}
    remote.write_text(json.dumps({"url": f"s3://{s3.new_bucket().name}", **keys}))
    paths = os.pathsep.join((str(SCRIPT.parent), str(SCRIPT.parents[1])))
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, remote, how, str(every)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    bad = [case for case in found if not all(case[word] for word in ("died", "whole", "healed", "same"))]
    assert bad == [], done.stderr[-4000:]
    return found


@pytest.mark.parametrize("how", ["before", "half"])
def test_a_run_that_dies_at_any_of_some_points_is_healed_by_the_next(tmp_path: Path, s3: S3, how: str) -> None:
    found = rehearse(tmp_path, s3, how, every=11)

    assert len(found) >= 4


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["before", "half"])
def test_a_run_that_dies_at_any_point_at_all_is_healed_by_the_next(tmp_path: Path, s3: S3, how: str) -> None:
    found = rehearse(tmp_path, s3, how, every=1)

    assert [case["at"] for case in found] == list(range(1, len(found) + 1))
    assert len(found) > 50
