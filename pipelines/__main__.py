"""`headrace`, or `python -m pipelines`: the command line, run with the code of the workspace one stands in."""

import atexit
import gc
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def workspace_above(folder: Path) -> Path | None:
    """The nearest folder, from `folder` upwards, that is a workspace of this project."""
    marks = ("dvc.yaml", "pipelines/__main__.py")
    return next((path for path in (folder, *folder.parents) if all((path / mark).exists() for mark in marks)), None)


def spare_the_collector() -> None:
    """Seldom look for garbage, and not at the end: a command keeps what it loads, and looking costs it a sixth."""
    gc.set_threshold(200_000, 20, 100)
    atexit.register(gc.freeze)


def main() -> None:
    """Run the command line; in a workspace that is another clone than this code, with that clone's code."""
    workspace = workspace_above(Path.cwd())
    if workspace and workspace.resolve() != HERE:
        paths = [str(workspace), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        os.execve(sys.executable, [sys.executable, "-m", "pipelines", *sys.argv[1:]], environment)  # noqa: S606
    if workspace:
        os.environ.setdefault("HEADRACE_WORKSPACE", str(workspace))
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it reads what each installed package declares
    spare_the_collector()
    from pipelines.cli import run  # noqa: PLC0415  only the code that is to run is imported

    run()


if __name__ == "__main__":
    main()
