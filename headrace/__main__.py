"""`headrace`, or `python -m headrace`: the command line, in the project of the folder one stands in."""

import atexit
import gc
import os


def tune_gc() -> None:
    """Collect garbage seldom, and not at exit: a command keeps what it loads, and collecting costs a sixth of it."""
    gc.set_threshold(200_000, 20, 100)
    atexit.register(gc.freeze)


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it reads what each installed package declares
    tune_gc()
    from headrace.cli import run  # noqa: PLC0415  after the settings above
    from headrace.workspace import enter_workspace  # noqa: PLC0415

    enter_workspace()
    run()


if __name__ == "__main__":
    main()
