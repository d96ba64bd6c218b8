"""`headrace accept`: let a finding pass that refuses a step."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.output import DatasetArgument, JsonOption, RunOption, check_name, result, run_task, workspace

if TYPE_CHECKING:
    from headrace.guards.finding_log import FindingLog
    from headrace.storage.table_store import TableStore


def add_to(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog="Example: headrace accept flights vanished:raw/flights/flights@4be0643f1d98 --reason 'moved to S3'"
    )(accept)


def accept(  # noqa: PLR0913  each is an option of the command
    dataset: DatasetArgument,
    findings: Annotated[
        list[str], typer.Argument(metavar="FINDING...", help="Ids of findings, as the refused step named them.")
    ],
    *,
    reason: Annotated[str, typer.Option(help="Why it may pass. It is stored with the release.")],
    by: Annotated[
        str | None, typer.Option(help="Who accepts it; by default the author that git names, else the user.")
    ] = None,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accept what a guard found, so that the refused step passes when it is run again.

    An acceptance is for these bytes: if they change, there is another finding. It is kept until the next release, which
    records who accepted what, when and why.
    """
    if not reason.strip():
        raise typer.BadParameter("expected a reason, found none", param_hint="--reason")
    from headrace.guards.gate import accept_finding, accepting_person  # noqa: PLC0415

    with run_task(dataset, run) if run else nullcontext() as task:
        table_store = task.table_store if task else workspace()[1]
        person = (by or "").strip() or accepting_person(table_store.root)
        ids = dict.fromkeys(finding.strip() for finding in findings)
        logs = {
            finding: _find_log(table_store, check_name(dataset), finding) for finding in ids
        }  # all of them, or none
        accepted = [accept_finding(log, finding, by=person, reason=reason.strip()) for finding, log in logs.items()]
    content = {
        "dataset": dataset,
        "accepted": [{**each.acceptance.to_dict(), "is_new": each.is_new} for each in accepted],
    }
    lines = [f"{each.acceptance}{'' if each.is_new else ' (before; nothing was changed)'}" for each in accepted]
    result(content, lines, as_json=as_json)


def _find_log(table_store: "TableStore", dataset: str, finding: str) -> "FindingLog":
    """The record that has a finding: that of the run or the workspace, else of a publish.

    Raises:
        DatasetError: There is no such dataset.
        UnknownFindingError: None has it, or only that of another run, which the message names.
    """
    from headrace.guards.finding_log import (  # noqa: PLC0415
        PUBLISH,
        open_finding_log,
        open_publish_log,
        read_shared_records,
    )
    from headrace.guards.gate import UnknownFindingError, check_known  # noqa: PLC0415
    from headrace.project.loading import check_declared  # noqa: PLC0415

    log: FindingLog = open_finding_log(table_store, dataset)
    try:
        check_known(log.read(), finding)
    except UnknownFindingError as error:
        check_declared(dataset, table_store.root)
        shared = read_shared_records(table_store, dataset)
        places = [name for name, record in shared.items() if finding in {each.id for each in record.findings}]
        if PUBLISH in places:
            return open_publish_log(table_store, dataset)
        if places:
            raise UnknownFindingError(
                f"{finding} was found in {'the run' if len(places) == 1 else 'the runs'} {', '.join(places)}: type the"
                f" command with `--run {places[-1]}`."
            ) from None
        error.add_note(f"`headrace status {dataset}` shows all findings of {dataset}.")
        raise
    return log
