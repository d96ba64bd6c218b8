"""**What arrived → a release, served.** Ingest, validate, transform, version, publish.

Every morning at 06:00 UTC, when yesterday is over in New York. A run asks for *everything* that has arrived, changed or
gone since the last one, whatever its date: late files, corrections and deletions need no backfill.

| when it fails | then |
|---|---|
| ingest | is the bucket or the database reachable? It is tried again by itself |
| validate | more rows were bad than is tolerated. The log names the check and where the rows lie |
| transform | a bug in a kernel: mend it, push, clear the task |
| version | somebody pushed first, or a stage is not up to date: clear the run |
| publish | the online store differs from the release. The log names the keys; the old release is still served |

Every task is safe to clear and run again. By hand: the command in *Rendered Templates*, in the workspace.
"""

from airflow.sdk import CronTriggerTimetable, Param, TaskGroup, chain, dag

from dags.parts.assets import FLIGHTS_ONLINE, FLIGHTS_RELEASE
from dags.parts.command import Command
from dags.parts.policy import DAG_POLICY, OVER_NETWORK
from dags.parts.workspace import at_origin

FINISHED_DAY = CronTriggerTimetable("0 6 * * *", timezone="UTC")
"""Not `@daily`: midnight UTC is 19:00 in New York, and the day's object would be half a day."""


@dag(
    dag_id="flights_refresh",
    dag_display_name="Flights: refresh",
    schedule=FINISHED_DAY,
    doc_md=__doc__,
    tags=["flights", "release"],
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
def flights_refresh() -> None:
    """Six commands, one after the other."""
    workspace = at_origin()
    with TaskGroup("tables", tooltip="source → raw → validated → features") as tables:
        ingest = Command(
            task_id="ingest",
            task_display_name="Ingest",
            command="python -m pipelines ingest flights --json"
            "{{ ' --full' if params.full else '' }}{{ ' --allow-empty' if params.allow_empty else '' }}",
            **OVER_NETWORK,
        )
        validate = Command(
            task_id="validate",
            task_display_name="Validate",
            command="python -m pipelines validate flights --json",
        )
        transform = Command(
            task_id="transform",
            task_display_name="Transform",
            command="python -m pipelines transform flights --json",
        )
        chain(ingest, validate, transform)
    with TaskGroup("release", tooltip="tables → release → online store") as release:
        version = Command(
            task_id="version",
            task_display_name="Version",
            command="python -m pipelines version flights --json",
            outlets=[FLIGHTS_RELEASE],
            **OVER_NETWORK,
        )
        publish = Command(
            task_id="publish",
            task_display_name="Publish",
            command="python -m pipelines publish flights --json",
            outlets=[FLIGHTS_ONLINE],
            **OVER_NETWORK,
        )
        chain(version, publish)
    chain(workspace, tables, release)


flights_refresh()
