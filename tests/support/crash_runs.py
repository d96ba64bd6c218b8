"""Runs `crashes.py`, and holds it to its promises."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("crash_harness.py")


def rehearse(
    folder: Path, scenario: str, settings: Mapping[str, Any], *, how: str = "points", count: int = 1
) -> list[dict[str, Any]]:
    """A line for each case, after the one of the undisturbed run.

    In each, readers saw the old or the new, whole, and the next run left what an undisturbed one does. What the run
    does stands in points, all of it.
    """
    told = folder / "settings.json"
    told.write_text(json.dumps(settings))
    paths = os.pathsep.join((str(SCRIPT.parent), str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, SCRIPT, scenario, told, folder / "rehearsal", how, str(count)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    calm, *cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert calm["outside"] == [], f"side effects that stand in no point of headrace/failpoints.py: {calm['outside']}"
    assert calm["differ"], "the run changed nothing that readers see"
    assert cases
    bad = [case for case in cases if case["mixed"] or case["other"] or case["failed"]]
    assert bad == [], f"{bad}\n{done.stderr[-4000:]}"
    assert how == "kill" or all(case["died"] for case in cases), done.stderr[-4000:]
    return [calm, *cases]
