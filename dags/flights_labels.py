"""**What caused this delay? → labels in a release.** Send, wait for people, collect, accept, version.

Every Monday at 07:00 UTC, after the refresh. A question that was sent is never sent again, an answer that was collected
is never collected twice: a run may be cleared or started at any time.

Two people answer each question; where they differ, a third is asked. A wait holds no worker. It ends when enough is
answered, or at its deadline; what is answered later is collected by the next run. Then the labels are measured: below
the declared thresholds the run fails, above them a person accepts or refuses the new answers here (Required Actions); a
day without a word accepts. What is refused is in no label from then on, whoever releases: not until the answer is
corrected, or accepted with `headrace label accept flights --all`. The rest is released.

| when it fails | then |
|---|---|
| send, collect, again, collect_again | is Label Studio reachable, its token valid, the question there as declared? |
| wait, wait_again | Label Studio refuses to show the project: the log says which, and what to check |
| measure | the labels are not good enough: the log says who differs; ask for more opinions, or talk to people |
| version | somebody pushed first, or a refresh is under way: it is tried again by itself |
"""

import shlex
from datetime import timedelta

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import CronTriggerTimetable, Param, TaskGroup, chain, dag

from dags.parts.answers import WaitForAnswers
from dags.parts.assets import release as released
from dags.parts.command import Command
from dags.parts.policy import DAG_POLICY, OVER_NETWORK
from dags.parts.workspace import at_origin

ACCEPT, REFUSE = "Accept", "Refuse"
DECIDE = """
{%- set said = ti.xcom_pull(task_ids='release.accept') -%}
python -m pipelines label {{ 'refuse' if 'Refuse' in said['chosen_options'] else 'accept' }} flights --table delay_cause
 --until {{ ti.xcom_pull(task_ids='release.measure')['until'] }}
 --by {{ ((said['responded_by_user'] or {}).get('name') or 'nobody') | quoted }}
 --reason {{ (said['params_input'].get('reason') or '') | quoted }} --json
"""
"""What a person said in Airflow, as one would type it."""

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
    user_defined_filters={"quoted": shlex.quote},
    **DAG_POLICY,
)
def flights_labels() -> None:
    """Commands before and after the wait for people."""
    send = _command("send", "Send questions", "label send")
    wait = _wait("wait", "Wait for people")
    with TaskGroup("answers", tooltip="what people answered → labels") as answers:
        chain(at_origin(), _command("collect", "Collect answers", "label collect"))
    with TaskGroup("opinions", tooltip="where two differ, a third is asked") as opinions:
        again = _command("again", "Ask where people differ", "label again")
        wait_again = _wait("wait_again", "Wait for more opinions")
        chain(again, wait_again, _command("collect_again", "Collect more answers", "label collect"))
    with TaskGroup("release", tooltip="labels → release") as release:
        measure = Command(
            task_id="measure",
            task_display_name="Measure the labels",
            command="python -m pipelines label report flights --table delay_cause --gate --json",
        )
        accept = HITLOperator(
            task_id="accept",
            task_display_name="Accept the answers",
            subject="Accept these answers?",
            body="{{ ti.xcom_pull(task_ids='release.measure')['summary'] | join('\n\n') }}",
            options=[ACCEPT, REFUSE],
            defaults=ACCEPT,
            params={"reason": Param("", type=["string", "null"], title="Why", description="Kept: name nobody.")},
            response_timeout=timedelta(days=1),
            execution_timeout=None,
        )
        decide = Command(task_id="decide", task_display_name="Keep the decision", command=DECIDE)
        version = Command(
            task_id="version",
            task_display_name="Version",
            command="python -m pipelines version flights --json",
            outlets=[released("flights")],
            **OVER_NETWORK,
        )
        chain(measure, accept, decide, version)
    chain(send, wait, answers, opinions, release)


def _command(task_id: str, title: str, verb: str) -> Command:
    return Command(
        task_id=task_id,
        task_display_name=title,
        command=f"python -m pipelines {verb} flights --table delay_cause --json",
        **OVER_NETWORK,
    )


def _wait(task_id: str, title: str) -> WaitForAnswers:
    return WaitForAnswers(
        task_id=task_id,
        task_display_name=title,
        project="{{ ti.xcom_pull(task_ids='send')['project'] }}",
        share="{{ params.share }}",
        hours="{{ params.hours }}",
        poll_s="{{ params.poll_s }}",
    )


flights_labels()
