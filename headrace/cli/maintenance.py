"""The verbs that keep what there is in order: doctor, gc."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import JsonOption, result

if TYPE_CHECKING:
    from headrace.maintenance.doctor import Care, Check


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (doctor, gc):
        app.command()(command)


def doctor(
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is damaged, clear what was left behind.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Hash every byte of remote and cache, not only sizes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that this machine, workspace and its releases are well, and say or do what mends them.

    Every object that a release, HEAD or the workspace names is looked for on the remote and in the cache. Exit code 1
    if something is left to mend.
    """
    from headrace.errors import HeadraceError  # noqa: PLC0415
    from headrace.maintenance.doctor import Check, can_care, care, examine  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415
    from headrace.storage.table_store import Lake  # noqa: PLC0415

    settings = load_settings()
    checks, seen = examine(settings), None
    try:
        if can_care(checks):
            seen = care(Lake.at(settings.workspace), deep=deep, mend=repair)
    except HeadraceError as error:
        checks.append(Check("objects", is_well=False, seen=str(error)))
    content = {"checks": [vars(item) for item in checks], **(_content(seen) if seen else {})}
    lines = [*map(_check_line, checks), *(_care_lines(seen, deep=deep, repair=repair) if seen else [])]
    result(content, lines, as_json=as_json)
    if not (seen and seen.is_well and all(item.is_well or item.is_note for item in checks)):
        raise typer.Exit(1)


def _check_line(item: "Check") -> str:
    word = "ok  " if item.is_well else "note" if item.is_note else "FAIL"
    return f"{word} {item.name}: {item.seen}"


def _content(seen: "Care") -> dict[str, Any]:
    return {
        "objects": seen.objects,
        "revisions": seen.revisions,
        "damaged": [
            {
                **{name: getattr(item.damage, name) for name in ("md5", "cache", "remote", "paths")},
                "held_by": item.damage.holders,
                "mended": item.mended,
                "left": item.left,
            }
            for item in seen.repaired
        ],
        "leftovers": [
            {"where": item.leftover.where, "what": item.leftover.what, "mended": item.mended, "left": item.left}
            for item in seen.cleared
        ],
    }


def _care_lines(seen: "Care", *, deep: bool, repair: bool) -> list[str]:
    found = [(str(item.damage), item.mended, item.left) for item in seen.repaired]
    found += [(f"{item.leftover.where}: {item.leftover.what}", item.mended, item.left) for item in seen.cleared]
    how = "hashed on both sides" if deep else "looked at by size; --deep hashes them"
    lines = [f"{'ok  ' if not seen.repaired else '    '} objects: {seen.objects:,} named by {seen.revisions} revisions"]
    lines[0] += f", {how}"
    for what, mended, left in found:
        lines += [f"{'ok  ' if mended else 'FAIL'} {what}"]
        lines += [f"     mended: {mended}"] if mended else [f"     left: {left}"] if left else []
    if found:
        done = sum(bool(mended) for _, mended, _ in found)
        rest = "" if repair else "; `headrace doctor --repair` mends what can be mended"
        lines.append(f"{len(found)} found, {done} mended, {len(found) - done} left{rest}")
    return lines


def gc(
    dataset: Annotated[
        str | None, typer.Argument(help="Checked to exist, and no more: objects belong to no dataset in particular.")
    ] = None,
    *,
    remote: Annotated[bool, typer.Option("--remote", help="Also on the DVC remote.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only say what would go.")] = False,
    hours: Annotated[float, typer.Option(min=0, help="Keep what is younger.")] = 24,
    as_json: JsonOption = False,
) -> None:
    """Delete objects that nobody names: no release, branch, stash, table of the workspace, or run that goes on.

    It looks only, unless `--yes` is given.
    """
    from headrace.maintenance.gc import collect  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415
    from headrace.storage.table_store import Lake  # noqa: PLC0415

    if dataset:
        load_dataset(dataset)
    found = collect(Lake.at(load_settings().workspace), hours=hours, remote=remote, yes=yes)
    word = "deleted" if found.is_gone else "would go"
    sides = {"cache": found.cache, **({"remote": found.remote} if remote else {})}
    lines = [f"{side}: {len(gone):,} objects {word}, {sum(gone.values()):,} bytes" for side, gone in sides.items()]
    lines += [] if found.is_gone else ["Nothing was deleted: `--yes` does it."]
    content = {side: {"objects": len(gone), "bytes": sum(gone.values())} for side, gone in sides.items()}
    result({**content, "kept": found.kept, "deleted": found.is_gone}, lines, as_json=as_json)
