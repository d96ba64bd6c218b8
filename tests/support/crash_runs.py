"""Runs `crash_harness.py` on a scenario, and asserts what must hold of every case."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("crash_harness.py")


def inject_crashes(
    folder: Path, scenario: str, settings: Mapping[str, Any], *, interruption: str = "points", count: int = 1
) -> list[dict[str, Any]]:
    """Crash a scenario's run at many positions; the results of the undisturbed run, then of each case.

    In each case readers saw the old state or the new one, never a mixture, and the next run left what an undisturbed
    run leaves. No side effect of the run is outside of a failpoint.
    """
    settings_path = folder / "settings.json"
    settings_path.write_text(json.dumps(settings))
    paths = os.pathsep.join((str(SCRIPT.parent), str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, SCRIPT, scenario, settings_path, folder / "crash-cases", interruption, str(count)],
        env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},  # NumPy, imported, starts no threads
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    undisturbed, *cases = [json.loads(line) for line in done.stdout.splitlines()]
    unguarded = undisturbed["unguarded_effects"]
    assert unguarded == [], f"side effects outside of the failpoints of headrace/failpoints.py: {unguarded}"
    assert undisturbed["changed"], "the run changed nothing that readers see"
    assert cases
    failed = [case for case in cases if case["inconsistent"] or case["not_recovered"] or case["error"]]
    assert failed == [], f"{failed}\n{done.stderr[-4000:]}"
    assert interruption == "kill" or all(case["interrupted"] for case in cases), done.stderr[-4000:]
    return [undisturbed, *cases]
