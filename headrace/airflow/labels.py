"""**A question to people → labels in a release.** Send, wait, collect, accept, version; a DAG for each labeling.

Every Monday at 07:00 UTC, after the refresh. A question that was sent is never sent again, an answer that was collected
is never collected twice: a run may be cleared or started at any time.

Where those who answered differ, one more is asked. A wait holds no worker. It ends when enough is answered, or at its
deadline; what is answered later is collected by the next run. Then the labels are measured: below the declared
thresholds the run fails, above them a person accepts or refuses the new answers here (Required Actions); a day without
a word accepts. What is refused is in no label from then on, whoever releases: not until the answer is corrected, or
accepted with `headrace label accept … --all`. The rest is released.

| when it fails | then |
|---|---|
| send, collect, again, collect_again | is Label Studio reachable, its token valid, the question there as declared? |
| wait, wait_again | Label Studio refuses to show the project: the log says which, and what to check |
| measure | the labels are not good enough: the log says who differs; ask for more opinions, or talk to people |
| release | somebody pushed first, or a refresh is under way: it is tried again by itself |
"""

import shlex
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, CronTriggerTimetable, Param, TaskGroup, chain, dag

from headrace.airflow.assets import release
from headrace.airflow.command import Command
from headrace.airflow.defaults import DAG_POLICY, OVER_NETWORK
from headrace.airflow.label_studio_sensor import WaitForAnswers
from headrace.airflow.stages import dataset_tables
from headrace.airflow.sync_workspace import at_origin

ACCEPT, REJECT = "Accept", "Reject"
DECIDE = """
{%- set said = ti.xcom_pull(task_ids='release.accept') -%}
headrace label {{ 'reject' if 'Reject' in said['chosen_options'] else 'accept' }} OF
 --until {{ ti.xcom_pull(task_ids='release.measure')['until'] }}
 --by {{ ((said['responded_by_user'] or {}).get('name') or 'nobody') | quoted }}
 --reason {{ (said['params_input'].get('reason') or '') | quoted }} --json
"""
"""What a person said in Airflow, as one would type it."""

MONDAYS_AFTER_REFRESH = CronTriggerTimetable("0 7 * * MON", timezone="UTC")

PARAMS = {
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
}


def label_dags(project: Path) -> dict[str, DAG]:
    """DAG id → the DAG of a labeling task, for every one of every dataset of the project."""
    tables = dataset_tables(project).items()
    dags = (label_dag(name, table) for name, found in tables for table in found["label"])
    return {one.dag_id: one for one in dags}


def label_dag(dataset: str, table: str) -> DAG:
    """The DAG of one labeling: commands before and after the wait for people."""
    of = f"{dataset} --table {table}"

    @dag(
        dag_id=f"{dataset}_label_{table}",
        dag_display_name=f"{dataset.capitalize()}: labels of {table}",
        schedule=MONDAYS_AFTER_REFRESH,
        doc_md=__doc__,
        tags=[dataset, "labels"],
        params=PARAMS,
        user_defined_filters={"quoted": shlex.quote},
        **DAG_POLICY,
    )
    def commands() -> None:
        send = _command("send", "Send questions", f"label send {of}")
        wait = _wait("wait", "Wait for people")
        with TaskGroup("answers", tooltip="what people answered → labels") as answers:
            chain(at_origin(), _command("collect", "Collect answers", f"label collect {of}"))
        with TaskGroup("opinions", tooltip="where people differ, one more is asked") as opinions:
            again = _command("again", "Ask where people differ", f"label request-more {of}")
            wait_again = _wait("wait_again", "Wait for more opinions")
            chain(again, wait_again, _command("collect_again", "Collect more answers", f"label collect {of}"))
        with TaskGroup("release", tooltip="labels → release") as out:
            measure = Command(
                task_id="measure",
                task_display_name="Measure the labels",
                command=f"headrace label report {of} --gate --json",
            )
            decide = Command(task_id="decide", task_display_name="Keep the decision", command=DECIDE.replace("OF", of))
            released = _command("release", "Release", f"release {dataset}", outlets=[release(dataset)])
            chain(measure, _accept(), decide, released)
        chain(send, wait, answers, opinions, out)

    return commands()


def _command(task_id: str, title: str, typed: str, **settings: Any) -> Command:  # noqa: ANN401  Airflow's own
    command = f"headrace {typed} --json"
    return Command(task_id=task_id, task_display_name=title, command=command, **OVER_NETWORK, **settings)


def _wait(task_id: str, title: str) -> WaitForAnswers:
    return WaitForAnswers(
        task_id=task_id,
        task_display_name=title,
        project="{{ ti.xcom_pull(task_ids='send')['project'] }}",
        share="{{ params.share }}",
        hours="{{ params.hours }}",
        poll_s="{{ params.poll_s }}",
    )


def _accept() -> HITLOperator:
    return HITLOperator(
        task_id="accept",
        task_display_name="Accept the answers",
        subject="Accept these answers?",
        body="{{ ti.xcom_pull(task_ids='release.measure')['summary'] | join('\n\n') }}",
        options=[ACCEPT, REJECT],
        defaults=ACCEPT,
        params={"reason": Param("", type=["string", "null"], title="Why", description="Kept: name nobody.")},
        response_timeout=timedelta(days=1),
        execution_timeout=None,
    )
