"""`headrace`, or `python -m headrace`: the command line, in the project of the current folder."""

import atexit
import gc
import os


def tune_gc() -> None:
    """Run the garbage collector seldom, and not at exit: a command keeps what it loads."""
    gc.set_threshold(200_000, 20, 100)
    atexit.register(gc.freeze)


def main() -> None:
    """Run the command line."""
    os.environ.setdefault(
        "PYDANTIC_DISABLE_PLUGINS", "__all__"
    )  # else pydantic reads the entry points of every installed package
    tune_gc()
    from headrace.cli import run  # noqa: PLC0415  after the settings above
    from headrace.feast_import import import_feast_unchecked  # noqa: PLC0415
    from headrace.workspace import enter_workspace  # noqa: PLC0415

    import_feast_unchecked()
    enter_workspace()
    run()


if __name__ == "__main__":
    main()
