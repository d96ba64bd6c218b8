"""The commands that maintain a workspace and its releases: releases, doctor, prune, gc."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import DatasetArgument, JsonOption, result, workspace
from headrace.text import pluralize

if TYPE_CHECKING:
    from headrace.maintenance.doctor import CheckResult, IntegrityReport
    from headrace.maintenance.release_summaries import ReleaseSummary
    from headrace.storage.pruned_releases import Tombstone


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: headrace releases flights --all")(releases)
    app.command(epilog="Example: headrace doctor --repair")(doctor)
    app.command(epilog="Example: headrace prune flights --no-dry-run")(prune)
    app.command(epilog="Example: headrace gc --remote --no-dry-run")(gc)


def doctor(
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Repair damaged objects and remove stale files.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Hash every byte on the remote and in the cache, not only compare sizes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check this machine, the project and its releases, and show how to fix what is wrong.

    Every object that a release, HEAD or the workspace references is looked up on the remote and in the cache. Exit
    code 1 if something remains to be fixed.
    """
    from headrace.errors import HeadraceError  # noqa: PLC0415
    from headrace.maintenance.damaged_files import (  # noqa: PLC0415
        find_damaged_files,
        find_damaged_manifests,
        repair_file,
        repair_manifest,
    )
    from headrace.maintenance.doctor import (  # noqa: PLC0415
        CheckResult,
        check_integrity,
        remote_available,
        run_checks,
    )
    from headrace.settings import load_settings  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    settings = load_settings()
    root = settings.workspace.resolve()
    # First of all: nearly everything else reads these files.
    damaged = [repair_file(root, item) if repair else item for item in find_damaged_files(root)]
    checks, integrity = run_checks(settings), None
    try:
        table_store = TableStore.at(root)
        damaged += [
            repair_manifest(table_store, item) if repair else item for item in find_damaged_manifests(table_store)
        ]
        if remote_available(checks):
            integrity = check_integrity(table_store, deep=deep, repair=repair)
    except HeadraceError as error:
        checks.append(CheckResult("objects", ok=False, detail=str(error)))
    checks += [
        CheckResult(f"file {item.path}", ok=bool(item.repaired), detail=item.repaired or item.reason)
        for item in damaged
    ]
    content = {"checks": [vars(item) for item in checks], **(_integrity_content(integrity) if integrity else {})}
    lines = [
        *map(_format_check, checks),
        *(_format_integrity(integrity, deep=deep, repair=repair) if integrity else []),
    ]
    result(content, lines, as_json=as_json)
    if not (integrity and integrity.ok and all(item.ok or item.is_warning for item in checks)):
        raise typer.Exit(1)


def _format_check(item: "CheckResult") -> str:
    status = "ok  " if item.ok else "warn" if item.is_warning else "FAIL"
    return f"{status} {item.name}: {item.detail}"


def _integrity_content(integrity: "IntegrityReport") -> dict[str, Any]:
    return {
        "objects": integrity.objects,
        "revisions": integrity.revisions,
        "damaged": [
            {
                "md5": item.damage.md5,
                "cache": item.damage.cache,
                "remote": item.damage.remote,
                "paths": item.damage.paths,
                "referenced_by": item.damage.referenced_by,
                "repaired": item.repaired,
                "unrepaired": item.unrepaired,
            }
            for item in integrity.repairs
        ],
        "stale_files": [
            {
                "location": item.stale_file.location,
                "reason": item.stale_file.reason,
                "removed": item.removed,
                "error": item.error,
            }
            for item in integrity.cleanups
        ],
    }


def _format_integrity(integrity: "IntegrityReport", *, deep: bool, repair: bool) -> list[str]:
    # What it is, what was done, why it could not be done.
    problems = [(str(item.damage), item.repaired, item.unrepaired) for item in integrity.repairs]
    problems += [
        (f"{item.stale_file.location} {item.stale_file.reason}", "removed" if item.removed else "", item.error)
        for item in integrity.cleanups
    ]
    how = "hashed on both sides" if deep else "compared by size; --deep hashes them"
    status = "    " if integrity.repairs else "ok  "
    lines = [f"{status} objects: {integrity.objects:,} referenced by {integrity.revisions} revisions, {how}"]
    for problem, repaired, unrepaired in problems:
        lines += [f"{'ok  ' if repaired else 'FAIL'} {problem}"]
        lines += (
            [f"     repaired: {repaired}"] if repaired else [f"     not repaired: {unrepaired}"] if unrepaired else []
        )
    if problems:
        done = sum(bool(repaired) for _, repaired, _ in problems)
        hint = "" if repair else "; `headrace doctor --repair` repairs what it can"
        lines.append(f"{len(problems)} found, {done} repaired, {len(problems) - done} remaining{hint}")
    return lines


def releases(
    dataset: DatasetArgument,
    *,
    show_all: Annotated[bool, typer.Option("--all", help="Also show the releases that were pruned.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the releases of a dataset: when, how large, and who needs each.

    New bytes are those that the release before does not have. A release is needed if it is online, if a lock file of a
    training set names it, if it is pinned, or if a rule of the dataset's retention policy keeps it; `headrace prune`
    removes the others. `online ?` means that it is unknown what is online.
    """
    import msgspec  # noqa: PLC0415

    from headrace.maintenance.release_summaries import list_release_summaries  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    settings, table_store = workspace()
    listing = list_release_summaries(load_dataset(dataset), table_store, settings)
    tombstones = listing.tombstones if show_all else ()
    lines = [
        *map(_format_tombstone, tombstones),
        *(line for each in listing.releases for line in _format_release(each)),
    ]
    lines += [f"online ?: {listing.online_error}"] if listing.online_error else []
    hidden = 0 if show_all else len(listing.tombstones)
    lines += [f"{pluralize(hidden, 'release')} pruned; `--all` shows them"] if hidden else []
    content: dict[str, Any] = {
        "dataset": dataset,
        "releases": [release.to_dict() for release in listing.releases],
        "online_error": listing.online_error or None,
    }
    if show_all:
        content["pruned"] = [msgspec.to_builtins(tombstone) for tombstone in tombstones]
    result(content, lines or [f"{dataset} has no release"], as_json=as_json)


def _format_release(release: "ReleaseSummary") -> list[str]:
    point, size = release.point, release.size
    new = "?" if size.new_bytes is None else f"{size.new_bytes:,}"
    needs = list(release.kept_by or ())
    if release.kept_by is None:
        needs = [*(["online"] if release.is_online else []), *(f"lock {path}" for path in release.locks)]
    needs += ["online ?"] if release.is_online is None else []
    facts = f"{point.time:%Y-%m-%d %H:%M}  {point.commit[:10]}  {size.rows:,} rows, {size.bytes:,} bytes, {new} new"
    may_go = "kept by nothing" if release.kept_by is not None and not needs else ""
    line = f"{point.name}  {facts}  {'; '.join(needs) or may_go}".rstrip()
    return [line, *(f"  {acceptance}" for acceptance in release.accepted)]


def _format_tombstone(tombstone: "Tombstone") -> str:
    was = f"{tombstone.released_at[:16].replace('T', ' ')}  {tombstone.commit[:10]}"
    size = f"{tombstone.rows:,} rows, {tombstone.bytes:,} bytes"
    why = f"pruned {tombstone.pruned_at[:10]} by {tombstone.pruned_by}: {tombstone.reason}"
    return f"{tombstone.release}  {was}  {size}  {why}"


def prune(
    dataset: DatasetArgument,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--no-dry-run", help="Show what would be pruned, or prune it.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Delete the releases that the dataset's retention policy does not keep, and leave a tombstone of each.

    The policy is declared on the dataset: `Dataset(retention=Retention(keep_last=7, keep_daily=30, keep_monthly=24,
    pinned={"flights/3": "figure 2 of the paper"}))`. Whatever it says, the latest release, the one that is online and
    those that a lock file of a training set names are kept. By default it only shows what would be pruned. Pruning
    deletes tags, not objects: `headrace gc` then deletes the objects that nothing references any more.
    """
    from headrace.maintenance.prune import prune as prune_releases  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    settings, table_store = workspace()
    done = prune_releases(load_dataset(dataset), table_store, settings, dry_run=dry_run)
    verb = "would be pruned" if done.dry_run else "pruned"
    lines = [f"{dataset}: {pluralize(len(done.pruned), 'release')} {verb}, {len(done.kept_by):,} kept ({done.policy})"]
    lines += [f"  {release} {verb}" for release in done.pruned]
    lines += [f"  {release} kept: {'; '.join(reasons)}" for release, reasons in done.kept_by.items()]
    if done.freed_objects:
        freed = f"{pluralize(done.freed_objects, 'object')}, {done.freed_bytes:,} bytes"
        lines.append(f"{freed} are referenced by nothing else: `headrace gc` can delete them afterwards")
    if done.pruned and done.dry_run:
        lines.append("Nothing was pruned; `--no-dry-run` prunes them.")
    result({**vars(done), "pruned": list(done.pruned)}, lines, as_json=as_json)


def gc(
    dataset: Annotated[
        str | None,
        typer.Argument(help="Ignored, apart from a check that it exists: objects do not belong to a dataset."),
    ] = None,
    *,
    remote: Annotated[bool, typer.Option("--remote", help="Delete from the DVC remote as well.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--no-dry-run", help="Show what would be deleted, or delete it.")
    ] = True,
    hours: Annotated[float, typer.Option(min=0, help="Keep objects that are younger than this.")] = 24,
    as_json: JsonOption = False,
) -> None:
    """Delete objects that nothing references: no release, branch, stash, workspace table or unfinished run.

    Runs that have written nothing for 14 days (HEADRACE_RUN_DAYS) are ended before. By default it only shows what would
    be deleted.
    """
    from headrace.maintenance.gc import collect_garbage  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    if dataset:
        load_dataset(dataset)
    garbage = collect_garbage(
        TableStore.at(load_settings().workspace), min_age_hours=hours, remote=remote, dry_run=dry_run
    )
    places = {"cache": garbage.cache, **({"remote": garbage.remote} if remote else {})}
    verb = "deleted" if garbage.deleted else "would be deleted"
    lines = [
        f"{place}: {len(sizes):,} objects {verb}, {sum(sizes.values()):,} bytes" for place, sizes in places.items()
    ]
    ended = "ended" if garbage.deleted else "would be ended"
    lines += [f"run {run} {ended}: it is old" for run in garbage.ended_runs]
    lines += [] if garbage.deleted else ["Nothing was deleted; `--no-dry-run` deletes them."]
    content = {place: {"objects": len(sizes), "bytes": sum(sizes.values())} for place, sizes in places.items()}
    facts = {"referenced": garbage.referenced, "ended_runs": garbage.ended_runs, "deleted": garbage.deleted}
    result({**content, **facts}, lines, as_json=as_json)
