"""The commands that serve a release: publish, retrieve."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import DatasetArgument, JsonOption, result, workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.dataset import Dataset
    from headrace.retrieve.result import RetrievalResult
    from headrace.retrieve.retrieve import Published
    from headrace.settings import Settings
    from headrace.storage.table_store import Lake


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: headrace publish flights --release flights/3")(publish)
    app.command(
        epilog="Example: headrace retrieve flights --requests requests.parquet --out training.parquet"
        " --split train=0.8,test=0.2 --split-by carrier"
    )(retrieve)


def publish(
    dataset: DatasetArgument,
    *,
    release: Annotated[
        str | None, typer.Option(help="A release, for example flights/3; by default the latest.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--verify-all", help="Verify every key, also those that cannot have changed.")
    ] = False,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Allow served features to be removed or to change type.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Release → online store: load the idle slot, verify it against the release, switch to it."""
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.publish.publish import PublishOptions  # noqa: PLC0415
    from headrace.publish.publish import publish as put_online  # noqa: PLC0415
    from headrace.release.release import latest_local_release  # noqa: PLC0415

    settings, lake = workspace()
    how = PublishOptions(everything, allow_changes, patient=True)
    made = put_online(load_dataset(dataset), lake, settings, release or latest_local_release(lake, dataset), how)
    head = f"{made.service} serves {made.release} from slot {made.side}{'' if made.switched else ', as before'}"
    loads = (
        f"  {table}: {load.written:,} keys written, {load.deleted:,} deleted, {load.kept:,} unchanged"
        for table, load in made.loads.items()
    )
    result(made.to_dict(), [head, *loads, *(f"  {proof}" for proof in made.proofs)], as_json=as_json)


def retrieve(  # noqa: PLR0913, PLR0917  a command's options
    dataset: DatasetArgument,
    requests: Annotated[Path, typer.Option(help="Parquet file of keys and `event_timestamp`: one row per request.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write: the requests with their features.")],
    feature: Annotated[
        list[str] | None, typer.Option(help="Only this feature, `table:feature`; may be repeated.")
    ] = None,
    release: Annotated[
        str | None, typer.Option(help="A release, for example flights/3, published or not; by default the one online.")
    ] = None,
    lock: Annotated[
        Path | None,
        typer.Option(help="Lock file of the training set: written if missing, else the rows must match it."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="By keys: train=0.8,test=0.2 with --split-by; by time: train,test=2013-11-01.")
    ] = None,
    split_by: Annotated[list[str] | None, typer.Option(help="Key column of the split; may be repeated.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Requests → training rows: the features of each row, as they were known at its time."""
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.retrieve.retrieve import FeatureRequest  # noqa: PLC0415
    from headrace.retrieve.retrieve import retrieve as answer  # noqa: PLC0415
    from headrace.retrieve.splits import parse  # noqa: PLC0415

    settings, lake = workspace()
    asked = FeatureRequest(feature or (), release, parse(split, split_by or ()) if split else None, lock)
    found = answer(load_dataset(dataset), lake, _published(lake, settings), requests, out, asked)
    lines = [
        f"{found.rows:,} rows in, {found.rows:,} rows out, from {found.release or 'the workspace'}: {found.path}",
        *(f"  {table}: features for {rows:,} rows" for table, rows in found.answered.items()),
        *(f"  {name}: {rows:,} rows" for name, rows in found.splits.items()),
        *(
            f"  by the keys of {table}, {leak.keys:,} keys are in several splits, {leak.near:,} times within"
            f" {leak.within}"
            for table, leak in found.leaks.items()
        ),
        *([f"  training set {found.id}, as locked in {lock}"] if found.id else []),
    ]
    result(found.to_dict(), lines, as_json=as_json)


def _published(lake: "Lake", settings: "Settings") -> "Published":
    """Answers where no release is named. Only then is Feast imported, which takes seconds."""

    def answer(dataset: "Dataset", requests: Path, names: "Sequence[str]") -> "tuple[RetrievalResult, str]":
        from headrace.feast.retrieve import published_rows  # noqa: PLC0415

        return published_rows(lake, settings)(dataset, requests, names)

    return answer
