"""**New data → a release, online.** Ingest, validate, transform, release, publish: one DAG per dataset.

On the dataset's schedule, by default every morning at 06:00 UTC. A run takes *everything* that arrived, changed or
disappeared since the last one, whatever its date: late files, corrections and deletions need no backfill, and Airflow
refuses one. Trigger a single run instead.

The commands work in an isolated run, on the commit that *Start the run* found: what is pushed or edited meanwhile does
not change them, and they leave no tables in the workspace. *Publish* works in the workspace, after `git pull`.

A task is retried automatically if the cause may pass: a server that does not answer, a table that another run holds, a
machine that goes down. Where a guard finds that much would vanish, or times in the future, the task waits for a person
(*Required Actions*), at most until the next scheduled run is due, which looks again. Everything else fails at once:

| when it fails | then |
|---|---|
| start_run | git's `origin` refuses the run, or lacks the code branch: the log says which |
| declaration | the dataset cannot run: the log names the file and what to do; the other datasets are not affected |
| ingest | bucket, database or credentials are wrong: the log names which |
| ingest, release | findings that somebody refused, or nobody answered in time: the log has the counts |
| publish | findings that somebody refused, or nobody answered in time: the log has the counts |
| validate | too many rows were rejected: the log names the check and the file with the rows |
| transform | a bug in a feature table's code: fix it, push, clear the whole DAG run, which moves it to the fix |
| release | the dataset's code or raw tables changed meanwhile: the log names them; clear the whole DAG run |
| release | labels below their thresholds, every answer there: `headrace label report`, `label reject`, clear the task |
| publish | the online store differs from the release: the log names the keys; the old release is still served |
| publish | or the workspace has commits that `origin` lacks: `git pull --rebase`, `git push`, clear the task |

Labels that wait for answers stop nothing: they stay as in the last release, the tables go out, and the log says so.

Every task is safe to clear and to run again. By hand: type the command in *Rendered Templates* as it is, in any clone
of the project; `--run` continues this run there.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from airflow.sdk import DAG, Param, TaskGroup, chain, dag

from headrace.airflow.assets import online_asset, release_asset
from headrace.airflow.dataset_facts import DatasetFacts, daily_timetable, read_facts
from headrace.airflow.headrace_operator import HeadraceOperator
from headrace.airflow.runbook import runbook
from headrace.airflow.stages import DatasetProblem, Tables, dataset_problems, dataset_tables
from headrace.airflow.start_run import RUN, start_run

DAILY = daily_timetable()
"""The schedule of a dataset that declares none."""

NO_TABLES: Tables = MappingProxyType({"validate": [], "transform": [], "label": []})

PARAMS: Mapping[str, Param] = {
    "full": Param(
        default=False,
        type="boolean",
        title="Read database tables in full",
        description="Also partitions whose watermark shows no change.",
        section="Ingest",
    ),
}


def refresh_dags(project: Path) -> dict[str, DAG]:
    """DAG id → the DAG that refreshes a dataset, for every dataset of the project, also for one that cannot run."""
    tables = dataset_tables(project)
    problems = dataset_problems(project, tables)
    names = sorted({*tables, *problems})
    dags = (
        refresh_dag(name, tables.get(name, NO_TABLES), problems.get(name), read_facts(project, name)) for name in names
    )
    return {one.dag_id: one for one in dags}


def refresh_dag(
    name: str, tables: Tables, problem: DatasetProblem | None = None, facts: DatasetFacts | None = None
) -> DAG:
    """The DAG of one dataset: one task per command that has something to compute.

    Args:
        name: The dataset.
        tables: Its tables; none if `headrace.lock` does not have it.
        problem: Why it cannot run. It is the first thing that the DAG's documentation says, and the first task fails.
        facts: Owner, description, schedule and tags.
    """
    facts = facts or DatasetFacts()
    computed = [command for command in ("validate", "transform") if tables[command]]
    served = ["publish"] if tables["transform"] else []
    checked = ["declaration"] if problem else []
    tasks = {*checked, "start_run", "ingest", *computed, "release", *served}
    broken = f"**This dataset cannot run.** {problem.message}\n\n" if problem else ""

    @dag(
        dag_id=f"{_identifier(name)}_refresh",
        dag_display_name=f"{_title(name)}: refresh",
        schedule=facts.timetable(),
        description=facts.description or None,
        doc_md=broken + facts.introduction() + runbook(__doc__ or "", tasks),
        tags=[name, "release", *(["broken"] if problem else []), *facts.dag_tags()],
        params=dict(PARAMS),
        **facts.dag_settings(),
    )
    def commands() -> None:
        first = [_declaration(problem)] if problem else []
        if not any(tables.values()):
            chain(*first)
            return
        first.append(start_run(name))
        with TaskGroup("tables", tooltip="source → raw → validated → features") as steps:
            ingest = HeadraceOperator(
                task_id="ingest",
                task_display_name="Ingest",
                command=f"headrace ingest {name} {RUN} --json{{{{ ' --full-refresh' if params.full else '' }}}}",
            )
            chain(ingest, *(_command(f"{command} {name} {RUN}") for command in computed))
        with TaskGroup("release", tooltip="tables → release → online store") as out:
            released = _command(f"release {name} {RUN}", outlets=[release_asset(name)])
            publish = (_command(f"{it} {name}", outlets=[online_asset(name)], sync_workspace=True) for it in served)
            chain(released, *publish)
        chain(*first, steps, out)

    return commands()


def _command(arguments: str, **settings: Any) -> HeadraceOperator:  # noqa: ANN401  Airflow's own
    name, command = arguments.split(maxsplit=1)[0], f"headrace {arguments} --json"
    return HeadraceOperator(task_id=name, task_display_name=name.capitalize(), command=command, **settings)


def _declaration(problem: DatasetProblem) -> HeadraceOperator:
    return HeadraceOperator(
        task_id="declaration",
        task_display_name="Load the declaration",
        command=problem.command,
        sync_workspace=True,
        doc_md=problem.message,
    )


def _identifier(name: str) -> str:
    """A folder's name as part of a DAG id, which has letters, digits, dashes, dots and underscores."""
    return "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in name)


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
