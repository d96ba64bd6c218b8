"""The commands that follow a declaration which was renamed or removed: rename, drop."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import JsonOption, check_name, result, workspace, writable_workspace
from headrace.errors import HeadraceError
from headrace.text import pluralize

if TYPE_CHECKING:
    from headrace.dataset import Dataset
    from headrace.feast.retired_views import RetiredViews
    from headrace.label.renamed_project import RenamedProject
    from headrace.maintenance.drop import DropResult
    from headrace.maintenance.rename import RenameResult
    from headrace.settings import Settings
    from headrace.storage.table_store import TableStore

DryRunOption = Annotated[bool, typer.Option("--dry-run/--no-dry-run", help="Show what would be done, or do it.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for `retired_tables.yaml` and the next release.")]

COMMIT = (
    "Commit the declaration with retired_tables.yaml, dvc.yaml, dvc.lock, headrace.lock and the `.dvc` files, and push;"
)


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: headrace rename flights carrier_delays delays_by_carrier --no-dry-run")(rename)
    app.command(epilog='Example: headrace drop flights carrier_delays --reason "unused since May" --no-dry-run')(drop)


@dataclass
class Elsewhere:
    """What is kept outside of the workspace, and of what this is not known because a server does not answer.

    Attributes:
        online: Views in Feast; None if no registry is configured.
        projects: Address → title of projects in Label Studio.
        unknown: System → why it could not be used.
    """

    online: "RetiredViews | None" = None
    projects: Mapping[str, str] = field(default_factory=dict)
    unknown: dict[str, HeadraceError] = field(default_factory=dict)

    def ask(self, system: str, ask: Callable[[], None]) -> None:
        """Ask a system; what it does not answer is noted."""
        try:
            ask()
        except HeadraceError as error:
            self.unknown[system] = error

    def content(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "online": asdict(self.online) if self.online else None,
            "label_studio": dict(self.projects),
            "unknown": {system: str(error) for system, error in self.unknown.items()},
        }

    def unknown_lines(self) -> Iterator[str]:
        """What is left to do where a system did not answer."""
        for system, error in self.unknown.items():
            yield f"not done: {system}: {error} Then run the same command again: it does what is left."


def drop(
    dataset: Annotated[str, typer.Argument(help="Name of the dataset.")],
    table: Annotated[
        str | None, typer.Argument(help="Name of the source, feature table or labeling task; by default the dataset.")
    ] = None,
    *,
    reason: ReasonOption = "its declaration was removed",
    dry_run: DryRunOption = True,
    as_json: JsonOption = False,
) -> None:
    """Drop the tables of a declaration that was removed, or of a whole dataset.

    Remove the declaration first, and what reads it; `headrace check` names what is left over. This command then removes
    the tables from the workspace, from what git records, and from what is online. By default it only shows what it
    would do. What a service still shows stays until `headrace publish` has switched it; then the same command removes
    it. Releases keep the tables that they have, and Label Studio its answers. It can be run again at any time.
    """
    from headrace.maintenance.drop import drop_tables, find_dataset, find_dropped, forget_dataset  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    settings, table_store = workspace()
    if table:
        tables = find_dropped(load_dataset(dataset), table, table_store)
    else:
        tables = find_dataset(check_name(dataset), table_store)
    done = drop_tables(dataset, tables, table_store, reason=reason, dry_run=dry_run)
    if not dry_run:
        _sync(table_store)
        if not table:
            forget_dataset(dataset, table_store)
    elsewhere = Elsewhere()
    features = [name.rsplit("/", 1)[1] for name in tables if name.startswith("features/")]
    if features or not table:
        views = features if table else None
        elsewhere.ask("online", lambda: _retire_views(elsewhere, dataset, views, table_store, settings, dry_run))
    for labeling in sorted({name.rsplit("/", 1)[1] for name in tables if name.startswith(("annotations/", "labels/"))}):
        elsewhere.ask("Label Studio", lambda name=labeling: _find_projects(elsewhere, name, settings))  # type: ignore[misc]
    lines = [*_format_drop(done), *_format_online(dataset, elsewhere, dry_run=dry_run)]
    lines += [
        f"Label Studio keeps the project {title!r} ({url}) with its answers: rename or delete it there"
        for url, title in elsewhere.projects.items()
    ]
    lines += [*_format_kept(dataset, done.kept_by), *elsewhere.unknown_lines()]
    release = f"then `headrace release {dataset}`" if table else "the next release of any dataset then lacks it"
    lines.append("Nothing was dropped; `--no-dry-run` drops them." if dry_run else f"{COMMIT} {release}.")
    content = {**vars(done), "tables": {name: vars(size) for name, size in done.tables.items()}}
    result({**content, **elsewhere.content()}, lines, as_json=as_json)


def _format_drop(done: "DropResult") -> Iterator[str]:
    verb = "would be dropped" if done.dry_run else "dropped"
    for table, size in done.tables.items():
        volume = f"{pluralize(size.partitions, 'partition')}, {size.rows:,} rows, {size.bytes:,} bytes"
        yield f"{table}: {volume} {verb}"


def _format_kept(dataset: str, release: str) -> Iterator[str]:
    if release:
        yield (
            f"{release} and the releases before it keep what they have:"
            f' `headrace.open("{dataset}", release="{release}")`'
        )


def _format_online(dataset: str, elsewhere: Elsewhere, *, dry_run: bool) -> Iterator[str]:
    online = elsewhere.online
    if online is None:
        return
    verb = "would be removed" if dry_run else "removed"
    for service in online.services:
        yield f"online: the service {service} {verb}: whoever asks it gets an error"
    if online.removed and online.wait_s:
        yield (
            f"online: {', '.join(online.removed)} stay: servers may read them for {online.wait_s:.0f} s more; run the"
            " same command again after that"
        )
    elif online.removed:
        yield f"online: {', '.join(online.removed)} {verb}, with their values"
    if online.served:
        yield (
            f"online: {', '.join(online.served)} stay, because a service shows them. After the next release: `headrace"
            f" publish {dataset} --allow-breaking-changes`, then the same command again"
        )


def _retire_views(  # noqa: PLR0913, PLR0917  what one call needs
    elsewhere: Elsewhere,
    dataset: str,
    tables: Sequence[str] | None,
    table_store: "TableStore",
    settings: "Settings",
    dry_run: bool,
) -> None:
    if _has_registry(table_store, settings):
        from headrace.feast.retired_views import retire_views  # noqa: PLC0415  Feast takes more than a second to import

        repo = table_store.root / "feature_repo"
        elsewhere.online = retire_views(dataset, tables, repo, settings, dry_run=dry_run)


def _has_registry(table_store: "TableStore", settings: "Settings") -> bool:
    """Whether something may be online: a registry is configured, and Feast's configuration is there."""
    return bool(settings.feast_registry_url) and (table_store.root / "feature_repo/feature_store.yaml").exists()


def _find_projects(elsewhere: Elsewhere, labeling: str, settings: "Settings") -> None:
    from headrace.label.renamed_project import find_projects, is_configured  # noqa: PLC0415

    if is_configured(settings):
        elsewhere.projects = {**elsewhere.projects, **find_projects(labeling, settings)}


def _sync(table_store: "TableStore") -> None:
    """Write `dvc.yaml` and `headrace.lock` as the datasets declare them now."""
    from headrace.project.dvc_stages import write_dvc_files  # noqa: PLC0415

    write_dvc_files(table_store.root)


def rename(  # noqa: PLR0913  options
    dataset: Annotated[str, typer.Argument(help="Name of the dataset; to rename a dataset, its old name.")],
    name: Annotated[
        str, typer.Argument(help="Old name of the source, feature table or labeling task; or the dataset's new name.")
    ],
    new: Annotated[str | None, typer.Argument(help="New name of the source, feature table or labeling task.")] = None,
    *,
    reason: ReasonOption = "its declaration was renamed",
    dry_run: DryRunOption = True,
    as_json: JsonOption = False,
) -> None:
    """Rename tables after their declaration: `rename flights OLD NEW`, or `rename OLD_DATASET NEW_DATASET`.

    Change the name in the declaration first, and in what reads it. If nothing else changed, nothing is computed: the
    partitions go on under the new name with the bytes and the lineage that they have. The old tables leave the
    workspace and what git records, and a project in Label Studio goes on with every task and answer. By default it only
    shows what it would do. What is online keeps the old name until the next publish. Releases keep the old tables. It
    can be run again at any time.
    """
    from headrace.maintenance.rename import find_dataset_renaming, find_renaming, rename_tables  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    settings, table_store = workspace() if dry_run else writable_workspace()
    declared = load_dataset(dataset if new else name)
    renaming = (
        find_renaming(declared, name, new, table_store)
        if new
        else find_dataset_renaming(declared, check_name(dataset), table_store)
    )
    done = rename_tables(declared, renaming, table_store, reason=reason, dry_run=dry_run)
    if not dry_run:
        _sync(table_store)
    elsewhere, projects = Elsewhere(), list["RenamedProject"]()
    features = [table.rsplit("/", 1)[1] for table in done.tables if table.startswith("features/")]
    moved: list[str] = []
    if new and features:
        elsewhere.ask("online", lambda: _retire_views(elsewhere, dataset, features, table_store, settings, dry_run))
    elif not new and _has_registry(table_store, settings):
        elsewhere.ask("online", lambda: moved.extend(_move_views(dataset, name, table_store, settings, dry_run)))
    if new:
        elsewhere.ask("Label Studio", lambda: projects.extend(_rename_project(declared, name, new, settings, dry_run)))
    lines = [*_format_rename(done), *_format_online(dataset, elsewhere, dry_run=dry_run)]
    if moved:
        lines.append(f"online: {', '.join(moved)} {'would belong' if dry_run else 'belong'} to {declared.name}")
    lines += [_format_project(project, dry_run=dry_run) for project in projects]
    lines += [*_format_params(declared, dataset, name, new, table_store)]
    lines += [*_format_kept(dataset, done.kept_by), *elsewhere.unknown_lines()]
    lines.append(
        "Nothing was renamed; `--no-dry-run` renames them."
        if dry_run
        else f"{COMMIT} then `headrace release {declared.name}`, before another run computes the new tables."
    )
    content = {**elsewhere.content(), "label_studio": [vars(project) for project in projects], "views_moved": moved}
    result({**vars(done), **content}, lines, as_json=as_json)


def _format_rename(done: "RenameResult") -> Iterator[str]:
    verb = "would be renamed" if done.dry_run else "renamed"
    yield from (f"{old}: {verb} to {new}" for old, new in done.tables.items())
    for table, partitions in done.carried.items():
        if table in done.stale:
            yield f"{table}: {done.stale[table]}, beyond the name: `headrace plan {done.dataset}` shows what is stale"
        else:
            yield f"{table}: {pluralize(partitions, 'partition')} carried over, none to compute"


def _format_project(project: "RenamedProject", *, dry_run: bool) -> str:
    verb = "would go on" if dry_run else "goes on"
    foreign = f"; {project.foreign:,} that somebody edited or imported stay as they are" if project.foreign else ""
    signed = f"{pluralize(project.signed, 'task')} {'to sign' if dry_run else 'signed'} again{foreign}"
    return f"Label Studio: the project {project.title!r} ({project.url}) {verb} under the new name, {signed}"


def _format_params(
    declared: "Dataset", dataset: str, name: str, new: str | None, table_store: "TableStore"
) -> Iterator[str]:
    """Parameters that still have the old name. Those of a sample have defaults, so nobody else would notice."""
    from headrace.storage.files import load_yaml  # noqa: PLC0415

    path = table_store.root / "params.yaml"
    params = load_yaml(path) if path.exists() else {}
    if not new and dataset in params:
        yield f"params.yaml has parameters of {dataset}: rename them to {declared.name}"
    elif new and name in (params.get(dataset) or {}) and any(labeling.name == new for labeling in declared.labels):
        yield f"params.yaml has parameters of {dataset}.{name}: rename them to {dataset}.{new}"


def _move_views(
    old: str,
    new: str,
    table_store: "TableStore",
    settings: "Settings",
    dry_run: bool,
) -> list[str]:
    from headrace.feast.retired_views import move_views  # noqa: PLC0415  Feast takes more than a second to import

    return move_views(old, new, table_store.root / "feature_repo", settings, dry_run=dry_run)


def _rename_project(
    declared: "Dataset",
    old: str,
    new: str,
    settings: "Settings",
    dry_run: bool,
) -> "list[RenamedProject]":
    from headrace.label.renamed_project import is_configured, rename_project  # noqa: PLC0415

    labelings = [labeling for labeling in declared.labels if labeling.name == new]
    if not (labelings and is_configured(settings)):
        return []
    renamed = [rename_project(labeling, old, settings, dry_run=dry_run) for labeling in labelings]
    return [project for project in renamed if project.url]
