"""`headrace accept`: let a finding pass that refuses a step."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import DatasetArgument, JsonOption, RunOption, check_name, result, run_task, workspace

if TYPE_CHECKING:
    from headrace.guards.finding_log import FindingLog
    from headrace.guards.gate import AcceptResult
    from headrace.storage.table_store import Lake


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
    from headrace.guards.gate import accepting_person  # noqa: PLC0415

    with run_task(dataset, run) if run else nullcontext() as task:
        lake = task.lake if task else workspace()[1]
        person = (by or "").strip() or accepting_person(lake.root)
        ids = dict.fromkeys(findings)
        accepted = [_accept_one(lake, check_name(dataset), finding, person, reason.strip()) for finding in ids]
    content = {
        "dataset": dataset,
        "accepted": [{**_fields(each.acceptance), "is_new": each.is_new} for each in accepted],
    }
    lines = [f"{each.acceptance}{'' if each.is_new else ' (before; nothing was changed)'}" for each in accepted]
    result(content, lines, as_json=as_json)


def _accept_one(lake: "Lake", dataset: str, finding: str, by: str, reason: str) -> "AcceptResult":
    """Accept a finding of the run or the workspace, else of a publish."""
    from headrace.guards.finding_log import open_finding_log, open_publish_log  # noqa: PLC0415
    from headrace.guards.gate import UnknownFindingError, accept_finding  # noqa: PLC0415

    try:
        return accept_finding(open_finding_log(lake, dataset), finding, by=by, reason=reason)
    except UnknownFindingError:
        log: FindingLog = open_publish_log(lake, dataset)
        if not log.is_shared or finding not in {each.id for each in log.read().findings}:
            raise
        return accept_finding(log, finding, by=by, reason=reason)


def _fields(acceptance: object) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    fields: dict[str, Any] = msgspec.to_builtins(acceptance)
    return fields
