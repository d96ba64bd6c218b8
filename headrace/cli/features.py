"""The commands that use a release: publish, retrieve."""

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
    from headrace.storage.table_store import TableStore


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
    verify_all: Annotated[
        bool, typer.Option("--verify-all", help="Verify every key, including those that no release changed.")
    ] = False,
    allow_breaking_changes: Annotated[
        bool,
        typer.Option(
            "--allow-breaking-changes", help="Allow features that are served now to be removed or to change their type."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Release → online store: load the idle slot, verify it against the release, switch to it."""
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.publish.publish import PublishOptions  # noqa: PLC0415
    from headrace.publish.publish import publish as publish_release  # noqa: PLC0415
    from headrace.release.branches import latest_local_release  # noqa: PLC0415

    settings, table_store = workspace()
    options = PublishOptions(verify_all, allow_breaking_changes, wait_for_readers=True)
    name = release or latest_local_release(table_store, dataset)
    published = publish_release(load_dataset(dataset), table_store, settings, name, options)
    lines = [
        f"{published.service} serves {published.release} from slot {published.slot}"
        + ("" if published.switched else ", as before"),
        *(
            f"  {table}: {load.written:,} keys written, {load.deleted:,} deleted, {load.unchanged:,} unchanged"
            for table, load in published.loads.items()
        ),
        *(f"  {verification}" for verification in published.verifications),
        *(f"  {acceptance}" for acceptance in published.accepted),
    ]
    result(published.to_dict(), lines, as_json=as_json)


def retrieve(  # noqa: PLR0913, PLR0917  a command's options
    dataset: DatasetArgument,
    requests: Annotated[Path, typer.Option(help="Parquet file with keys and `event_timestamp`, one row per request.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write: the requests with their features.")],
    feature: Annotated[
        list[str] | None, typer.Option(help="Only this feature, `table:feature`; may be repeated.")
    ] = None,
    release: Annotated[
        str | None,
        typer.Option(help="A release, for example flights/3, published or not; by default the published one."),
    ] = None,
    lock: Annotated[
        Path | None,
        typer.Option(
            help="Lock file of the training set. It is written if it is missing; otherwise the rows must match it."
        ),
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
    from headrace.retrieve.retrieve import retrieve as retrieve_rows  # noqa: PLC0415
    from headrace.retrieve.splits import parse_split  # noqa: PLC0415

    settings, table_store = workspace()
    request = FeatureRequest(feature or (), release, parse_split(split, split_by or ()) if split else None, lock)
    report = retrieve_rows(
        load_dataset(dataset), table_store, _published(table_store, settings), requests, out, request
    )
    lines = [
        f"{report.rows:,} rows in, {report.rows:,} rows out, from {report.release or 'the workspace'}: {report.path}",
        *(f"  {table}: features for {rows:,} rows" for table, rows in report.matched_rows.items()),
        *(f"  {name}: {rows:,} rows" for name, rows in report.split_rows.items()),
        *(
            f"  {table}: {leakage.shared_keys:,} keys are in several splits, {leakage.neighbours:,} pairs of rows of"
            f" one key within {leakage.within} are in different splits"
            for table, leakage in report.leakage.items()
        ),
        *([f"  training set {report.training_set_id}, as locked in {lock}"] if report.training_set_id else []),
    ]
    result(report.to_dict(), lines, as_json=as_json)


def _published(table_store: "TableStore", settings: "Settings") -> "Published":
    """Retrieves from the published release. Only this imports Feast, which is slow."""

    def answer(dataset: "Dataset", requests: Path, names: "Sequence[str]") -> "tuple[RetrievalResult, str]":
        from headrace.extras import require_extra  # noqa: PLC0415

        require_extra("feast", "headrace retrieve without --release")
        from headrace.feast.retrieve import published_rows  # noqa: PLC0415

        return published_rows(table_store, settings)(dataset, requests, names)

    return answer
