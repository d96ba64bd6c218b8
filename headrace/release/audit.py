"""The audit before a release: nothing is left to compute, every row is accounted for, the code is committed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headrace.dataset import Dataset
from headrace.engine.fingerprint import check_code_unchanged, stage_code
from headrace.engine.plan import Plan
from headrace.engine.run import plan_stage
from headrace.errors import HeadraceError, TransientError
from headrace.project import engine_lock, graph
from headrace.project.engine_lock import lock_params
from headrace.storage import git
from headrace.storage.files import load_yaml, parse_yaml
from headrace.storage.manifest_entries import LazyEntries
from headrace.storage.table_store import TableStore


class AuditError(HeadraceError):
    """The tables are not up to date, or rows are not accounted for, so they cannot be released."""


class TablesBehindError(AuditError, TransientError):
    """A stage has work to do; most often another run is in progress and will do it."""


class UncommittedCodeError(AuditError):
    """The tables were computed with code that is not as committed on the code branch.

    Attributes:
        found: What was found, without the commands to run next.
    """

    def __init__(self, dataset: str, branch: str, files: Mapping[tuple[str, str], list[str]]) -> None:
        lists = [(", ".join(names), where, commands) for (where, commands), names in files.items()]
        expected = f"{dataset}: expected every file that decides its tables to be as on {branch}, found"
        self.found = f"{expected} {'; '.join(f'{names}: {where}' for names, where, _ in lists)}."
        found = "; ".join(f"{names}: {where} ({commands})" for names, where, commands in lists)
        super().__init__(f"{expected} {found}. Nothing was released. Then run `headrace release {dataset}` again.")


def audit(dataset: Dataset, table_store: TableStore) -> dict[str, TablesBehindError]:
    """Check that the tables are what today's code makes of today's inputs, and that every row is accounted for.

    Returns:
        Labels table → what its stage has to do: what only labels lack stops no table.

    Raises:
        TablesBehindError: A stage has work to do; the message names the command.
        CodeChangedError: A file of a stage is not what this process has loaded.
        AuditError: A partition's counts do not add up.
    """
    behind: dict[str, TablesBehindError] = {}
    for stage in graph.dataset_stages(dataset):
        plan = plan_stage(stage, table_store)
        check_code_unchanged(stage, plan.fingerprint)
        try:
            _check_up_to_date(plan, table_store)
        except TablesBehindError as error:
            if stage.verb != "label":
                raise
            behind[stage.table] = error
        if stage.verb == "validate":
            _check_counts(stage.table, plan.reused)
    return behind


def _check_up_to_date(plan: Plan, table_store: TableStore) -> None:
    stage = plan.stage
    command = f"`headrace {'label aggregate' if stage.verb == 'label' else 'run'} {stage.dataset}`"
    if not plan.is_empty:
        pending = plan.pending_partitions
        raise TablesBehindError(
            f"{stage.table}: expected every partition to be up to date, found {len(pending)} that are not,"
            f" {pending[0]} first. `headrace plan {stage.dataset}` shows why; {command} brings them up to date."
        )
    for table, planned in plan.kept_manifests().items():
        if table_store.manifest(table).entries != planned.entries:
            raise TablesBehindError(
                f"{table}: expected the partitions that were computed with {stage.table}, found others."
                f" {command} writes the table again."
            )


def _check_counts(table: str, entries: LazyEntries) -> None:
    accepted = entries.column("rows")
    for name, counts in entries.column("metadata").items():
        if counts["rows_in"] != (accepted[name] or 0) + counts["rejected"]:
            raise AuditError(
                f"{table} {name}: {counts['rows_in']:,} rows came in, but {accepted[name]:,} accepted and"
                f" {counts['rejected']:,} rejected do not add up to that. Nothing was released."
            )


def changes_code(dataset: Dataset, root: Path, before: str, after: str) -> bool:
    """Whether files that decide the dataset's tables differ between two commits."""
    files = (*_code_files(dataset, root), "params.yaml", engine_lock.FILE)
    return before != after and bool(git.git(root, "diff-tree", "-r", "--name-only", before, after, "--", *files))


def _code_files(dataset: Dataset, root: Path) -> list[str]:
    return sorted({name for stage in graph.dataset_stages(dataset) for name in stage_code(stage, root).files})


def check_code_committed(dataset: Dataset, table_store: TableStore, branch: str, tip: str) -> None:
    """Check that every file of the stages' fingerprints is as committed at `tip`, the tip of the code branch.

    Where the workspace stands, on a branch or on a detached HEAD, does not matter: the release names `tip`.

    Raises:
        UncommittedCodeError: A file is not; the message lists all of them, and the next command.
    """
    root = table_store.root
    stages = graph.dataset_stages(dataset)
    codes = {stage: stage_code(stage, root) for stage in stages}
    files = _code_files(dataset, root)
    here, released = git.hash_files(root, files), git.tree(root, tip, *files) if files else {}
    values = {
        "params.yaml": {name for stage in stages for name in stage.params},
        engine_lock.FILE: {name for stage in stages for name in lock_params(codes[stage], stage.verb)},
    }
    differing = [name for name in files if here.get(name) != released.get(name)]
    differing += [name for name, wanted in values.items() if not _has_values(root, tip, name, wanted)]
    if not differing:
        return
    here |= git.hash_files(root, values)
    head, fork = git.head(root), git.merge_base(root, git.head(root), tip)
    committed, before = git.tree(root, head, *differing), git.tree(root, fork, *differing) if fork else {}
    files_by_state: dict[tuple[str, str], list[str]] = {}
    for name in differing:
        if name not in committed:
            state = "not in git", "`git add`, `git commit`, `git push`"
        elif here.get(name) != committed[name]:
            state = "changed and not committed", "`git commit`, `git push`"
        elif before.get(name) == committed[name]:
            pull = f"`git pull --rebase {git.REMOTE} {branch}`, `headrace run {dataset.name}`"
            state = f"changed on {branch} since", pull
        else:
            push = f"`git push {git.REMOTE} HEAD:{branch}`, or merge your branch there"
            state = f"committed, but not on {branch}", push
        files_by_state.setdefault(state, []).append(name)
    raise UncommittedCodeError(dataset.name, f"{git.REMOTE}/{branch} ({tip[:10]})", files_by_state)


def _has_values(root: Path, commit: str, name: str, wanted: Iterable[str]) -> bool:
    """Whether a YAML file has the same values here and at `commit`; the rest of it belongs to other datasets."""
    path = root / name
    here = load_yaml(path) if path.exists() else {}
    there = parse_yaml(git.show(root, commit, name) or b"")
    return all(_value(here, key) == _value(there, key) for key in wanted)


def _value(content: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401  whatever the file holds
    found: Any = content
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
