"""**What caused this delay? → labels in a release.** Send, wait for people, collect, version.

Every Monday at 07:00 UTC, after the refresh. A question that was sent is never sent again, an answer that was collected
is never collected twice: a run may be cleared or started at any time.

The wait holds no worker. It ends when enough is answered, or at its deadline; what is answered later is collected by
the next run.

| when it fails | then |
|---|---|
| send, collect | is Label Studio reachable, is its token valid, did somebody edit the question there? |
| wait | Label Studio refuses to show the project: the log says which, and what to check |
| version | somebody pushed first, or a refresh is under way: it is tried again by itself |
"""

from airflow.sdk import CronTriggerTimetable, Param, TaskGroup, chain, dag

from dags.parts.answers import WaitForAnswers
from dags.parts.assets import FLIGHTS_RELEASE
from dags.parts.command import Command
from dags.parts.policy import DAG_POLICY, OVER_NETWORK
from dags.parts.workspace import at_origin

MONDAYS_AFTER_REFRESH = CronTriggerTimetable("0 7 * * MON", timezone="UTC")


@dag(
    dag_id="flights_labels",
    dag_display_name="Flights: labels",
    schedule=MONDAYS_AFTER_REFRESH,
    doc_md=__doc__,
    tags=["flights", "labels"],
    params={
        "share": Param(
            1.0,
            type="number",
            minimum=0,
            maximum=1,
            title="Share of tasks",
            description="Answered or skipped by somebody; then the wait is over.",
            section="Waiting",
        ),
        "hours": Param(
            48,
            type="number",
            exclusiveMinimum=0,
            title="Deadline in hours",
            description="What is answered by then goes on.",
            section="Waiting",
        ),
        "poll_s": Param(60, type="number", minimum=0.5, title="Seconds between looks", section="Waiting"),
    },
    **DAG_POLICY,
)
def flights_labels() -> None:
    """Commands before and after the wait for people."""
    send = Command(
        task_id="send",
        task_display_name="Send questions",
        command="python -m pipelines label send flights --table delay_cause --json",
        **OVER_NETWORK,
    )
    wait = WaitForAnswers(
        task_id="wait",
        task_display_name="Wait for people",
        project="{{ ti.xcom_pull(task_ids='send')['project'] }}",
        share="{{ params.share }}",
        hours="{{ params.hours }}",
        poll_s="{{ params.poll_s }}",
    )
    with TaskGroup("release", tooltip="answers → labels → release") as release:
        workspace = at_origin()
        collect = Command(
            task_id="collect",
            task_display_name="Collect answers",
            command="python -m pipelines label collect flights --table delay_cause --json",
            **OVER_NETWORK,
        )
        version = Command(
            task_id="version",
            task_display_name="Version",
            command="python -m pipelines version flights --json",
            outlets=[FLIGHTS_RELEASE],
            **OVER_NETWORK,
        )
        chain(workspace, collect, version)
    chain(send, wait, release)


flights_labels()
