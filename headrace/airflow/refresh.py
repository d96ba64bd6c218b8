"""**What arrived → a release, served.** Ingest, validate, transform, version, publish; a DAG for each dataset.

Every morning at 06:00 UTC. A run asks for *everything* that has arrived, changed or gone since the last one, whatever
its date: late files, corrections and deletions need no backfill.

| when it fails | then |
|---|---|
| ingest | is the bucket or the database reachable? It is tried again by itself |
| validate | more rows were bad than is tolerated. The log names the check and where the rows lie |
| transform | a bug in a kernel: mend it, push, clear the task |
| release | somebody pushed first, or a stage is not up to date: clear the run |
| publish | the online store differs from the release. The log names the keys; the old release is still served |

Every task is safe to clear and run again. By hand: the command in *Rendered Templates*, in the workspace.
"""

from pathlib import Path
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, TaskGroup, chain, dag

from headrace.airflow.assets import online, release
from headrace.airflow.command import Command
from headrace.airflow.defaults import DAG_POLICY, OVER_NETWORK
from headrace.airflow.docs import runbook
from headrace.airflow.stages import Tables, dataset_tables
from headrace.airflow.sync_workspace import at_origin

FINISHED_DAY = CronTriggerTimetable("0 6 * * *", timezone="UTC")
"""Not `@daily`: midnight UTC is 19:00 in New York, and the day's object would be half a day."""


def refresh_dags(project: Path) -> dict[str, DAG]:
    """DAG id → the DAG that refreshes a dataset, for every dataset of the project."""
    dags = (refresh_dag(name, tables) for name, tables in dataset_tables(project).items())
    return {one.dag_id: one for one in dags}


def refresh_dag(name: str, tables: Tables) -> DAG:
    """The DAG of one dataset: one task per command that has something to make."""
    made = [verb for verb in ("validate", "transform") if tables[verb]]
    served = ["publish"] if tables["transform"] else []

    @dag(
        dag_id=f"{name}_refresh",
        dag_display_name=f"{name.capitalize()}: refresh",
        schedule=FINISHED_DAY,
        doc_md=runbook(__doc__ or "", {"ingest", *made, "release", *served}),
        tags=[name, "release"],
        params={
            "full": Param(
                default=False,
                type="boolean",
                title="Read database tables whole",
                description="Also rows whose watermark says that nothing changed.",
                section="Ingest",
            ),
            "allow_empty": Param(
                default=False,
                type="boolean",
                title="Believe an empty source",
                description="A source that lists nothing at all is taken for a fault, unless this is set.",
                section="Ingest",
            ),
        },
        **DAG_POLICY,
    )
    def commands() -> None:
        with TaskGroup("tables", tooltip="source → raw → validated → features") as steps:
            ingest = Command(
                task_id="ingest",
                task_display_name="Ingest",
                command=f"headrace ingest {name} --json"
                "{{ ' --full-refresh' if params.full else '' }}{{ ' --allow-empty' if params.allow_empty else '' }}",
                **OVER_NETWORK,
            )
            chain(ingest, *(_command(verb, name) for verb in made))
        with TaskGroup("release", tooltip="tables → release → online store") as out:
            released = _command("release", name, outlets=[release(name)], **OVER_NETWORK)
            chain(released, *(_command(verb, name, outlets=[online(name)], **OVER_NETWORK) for verb in served))
        chain(at_origin(), steps, out)

    return commands()


def _command(verb: str, name: str, **settings: Any) -> Command:  # noqa: ANN401  Airflow's own
    command = f"headrace {verb} {name} --json"
    return Command(task_id=verb, task_display_name=verb.capitalize(), command=command, **settings)
