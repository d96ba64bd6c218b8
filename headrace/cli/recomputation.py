"""Which partitions a command computes, and the question before a large recomputation."""

import os
import sys
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headrace.engine.stage import Stage
    from headrace.storage.table_store import TableStore

FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="Only partitions from this hour, day, month or year on."),
]
ToOption = Annotated[
    str | None,
    typer.Option("--to", metavar="TIME", help="Only partitions up to this hour, day, month or year, included."),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask before a change of code recomputes many partitions.")
]

DVC_VARIABLE = "DVC_STAGE"
"""Set by `dvc repro` for each command: it passes the terminal on, but nobody expects a question there."""


def chosen_partitions(partition: str | None, first: str | None, last: str | None) -> Container[str] | None:
    """The partitions that options name; None for all.

    Raises:
        PartitionRangeError: The ends of the range are not two times in order.
    """
    if partition and (first or last):
        raise typer.BadParameter("expected one partition or a range, found both", param_hint="--partition")
    if not (first or last):
        return (partition,) if partition else None
    from headrace.engine.partition_range import PartitionRange  # noqa: PLC0415

    return PartitionRange(first, last)


def confirm_recomputation(
    stages: "Sequence[Stage]", table_store: "TableStore", chosen: Container[str] | None, *, yes: bool
) -> None:
    """Say what a change of code, parameters or libraries would recompute, and ask, if it is much and somebody is there.

    Without a terminal nothing is asked: the run logs a warning and goes on, because a nightly run that waits for an
    answer is worse than one that takes longer.

    Raises:
        typer.Exit: The answer is no. Nothing was computed.
    """
    if yes or not can_ask():
        return
    from headrace.engine.recomputation import find_recomputation  # noqa: PLC0415
    from headrace.engine.run import plan_all  # noqa: PLC0415

    found = find_recomputation(plan_all(stages, table_store, only=chosen), table_store)
    if found is None or not found.is_large:
        return
    typer.echo(f"{str(found)[0].upper()}{str(found)[1:]}.", err=True)
    if not typer.confirm("Compute them now?", default=True, err=True):
        dataset = stages[0].dataset
        typer.echo(
            f"Nothing was computed. `headrace preview {dataset} TABLE` tries one partition; `--from` and `--to` limit"
            " the run to a range.",
            err=True,
        )
        raise typer.Exit(1)


def can_ask() -> bool:
    """Whether a person is at a terminal who started this very command."""
    return sys.stdin.isatty() and sys.stderr.isatty() and DVC_VARIABLE not in os.environ
