"""**Questions to annotators → labels in a release.** Send, wait, collect, accept, release: one DAG per labeling task.

Every Monday at 07:00 UTC, after the refresh. A task that was sent is never sent again, and an answer that was collected
is never collected twice: a run may be cleared or started at any time.

Where annotators disagree, one more is asked. A wait occupies no worker. It ends when enough is answered, or at its
deadline; what is answered later is collected by the next run. Then the labels are measured: below the declared
thresholds the run fails; otherwise a person accepts or rejects the new answers here (Required Actions). After a day
without a decision they count if the declaration says `unreviewed="accept"`, and are held otherwise. No label uses a
rejected answer, in any release, until it is corrected, or accepted with `headrace label accept … --include-reviewed`,
nor one that somebody else than its author changed, unless `--include-disputed` accepts it. The rest is released.

The commands work in an isolated run. After each wait it moves to the newest commit, because the dataset may have been
released meanwhile, and collects what it lacks.

A task is retried automatically if the cause may pass. Everything else fails at once:

| when it fails | then |
|---|---|
| start_run, update_run | git's `origin` refuses the run, or lacks the code branch: the log says which |
| send, collect, request_more, collect_again | is the token valid? is the project in Label Studio as declared? |
| collect, collect_again | most answers would vanish, and nobody accepted that (*Required Actions*) in time |
| wait, wait_again | Label Studio refuses to show the project, or does not answer: the log says what to check |
| measure | the labels are not good enough: the log names who disagrees; ask for more answers, or talk to people |
| accept | Airflow lost the request: clear the task, and it asks again |
| decide | the decision could not be recorded: the log says why; clear the task |
| release | the dataset's code changed meanwhile: the log names the files; clear `release.update_run` and what follows |

By hand: type the command in *Rendered Templates* as it is, in any clone of the project; `--run` continues this run
there.
"""

import shlex
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, CronTriggerTimetable, Param, TaskGroup, chain, dag

from headrace.airflow.assets import release_asset
from headrace.airflow.dataset_facts import DatasetFacts, read_facts
from headrace.airflow.defaults import NOT_AT_ONCE
from headrace.airflow.headrace_operator import HeadraceOperator
from headrace.airflow.label_studio_sensor import LabelStudioSensor
from headrace.airflow.stages import dataset_tables
from headrace.airflow.start_run import RUN, start_run, update_run

ACCEPT, REJECT = "Accept", "Reject"
DECIDE = """
{%- set answer = ti.xcom_pull(task_ids='release.accept') or {} -%}
headrace label {{ 'reject' if 'Reject' in answer.get('chosen_options', []) else 'accept' }} LABELING
 --before {{ ti.xcom_pull(task_ids='release.measure')['before'] }}
 --by {{ ((answer.get('responded_by_user') or {}).get('name') or 'nobody') | quoted }}
 --reason {{ ((answer.get('params_input') or {}).get('reason') or '') | quoted }} RUN --json
"""
"""The command that records the decision made in Airflow. Marking `accept` as successful by hand accepts, as a day
without a decision does, by `nobody`: what only counts after a review stays held."""

WEEKLY = CronTriggerTimetable("0 7 * * MON", timezone="UTC", run_immediately=NOT_AT_ONCE)
"""An hour after the daily refresh."""

MOST_HOURS = 24 * 366
"""A wait of more than a year is a slip of the keyboard."""

PARAMS = {
    "share": Param(
        1.0,
        type="number",
        minimum=0,
        maximum=1,
        title="Share of tasks",
        description="The wait ends when this share is answered or skipped.",
        section="Waiting",
    ),
    "hours": Param(
        48,
        type="number",
        exclusiveMinimum=0,
        maximum=MOST_HOURS,
        title="Deadline in hours",
        description="The run continues with what is answered by then.",
        section="Waiting",
    ),
    "poll_s": Param(60, type="number", minimum=0.5, title="Seconds between requests", section="Waiting"),
}


def label_dags(project: Path) -> dict[str, DAG]:
    """DAG id → the DAG of a labeling task, for every one of every dataset of the project."""
    found = dataset_tables(project).items()
    dags = (label_dag(name, table, read_facts(project, name)) for name, tables in found for table in tables["label"])
    return {one.dag_id: one for one in dags}


def label_dag(dataset: str, table: str, facts: DatasetFacts | None = None) -> DAG:
    """The DAG of one labeling task: commands before and after the wait for people."""
    facts = facts or DatasetFacts()
    labeling = f"{dataset} --table {table}"

    @dag(
        dag_id=f"{dataset}_label_{table}",
        dag_display_name=f"{dataset.replace('_', ' ').capitalize()}: labels of {table}",
        schedule=WEEKLY,
        description=facts.description or None,
        doc_md=facts.introduction() + (__doc__ or ""),
        tags=[dataset, "labels", *facts.dag_tags()],
        params=PARAMS,
        user_defined_filters={"quoted": shlex.quote},
        **facts.dag_settings(),
    )
    def commands() -> None:
        send = _command("send", "Send tasks", f"label send {labeling}")
        wait = _wait("wait", "Wait for people")
        with TaskGroup("answers", tooltip="people's answers → labels") as answers:
            chain(update_run(dataset), _command("collect", "Collect answers", f"label collect {labeling}"))
        with TaskGroup("opinions", tooltip="where annotators disagree, one more is asked") as opinions:
            request_more = _command("request_more", "Ask where people disagree", f"label request-more {labeling}")
            wait_again = _wait("wait_again", "Wait for more answers")
            collect_again = _command("collect_again", "Collect more answers", f"label collect {labeling}")
            chain(request_more, wait_again, update_run(dataset), collect_again)
        with TaskGroup("release", tooltip="labels → release") as out:
            measure = _command("measure", "Measure the labels", f"label report {labeling} --gate")
            decide = HeadraceOperator(
                task_id="decide",
                task_display_name="Record the decision",
                command=DECIDE.replace("LABELING", labeling).replace("RUN", RUN),
            )
            # The decision may take a day. If the dataset was released meanwhile, the run has to collect once more.
            collect = _command("collect", "Collect answers", f"label collect {labeling}")
            released = _command("release", "Release", f"release {dataset}", outlets=[release_asset(dataset)])
            chain(measure, _accept(), update_run(dataset), collect, decide, released)
        chain(start_run(dataset), send, wait, answers, opinions, out)

    return commands()


def _command(task_id: str, title: str, arguments: str, **settings: Any) -> HeadraceOperator:  # noqa: ANN401  Airflow's own
    command = f"headrace {arguments} {RUN} --json"
    return HeadraceOperator(task_id=task_id, task_display_name=title, command=command, **settings)


def _wait(task_id: str, title: str) -> LabelStudioSensor:
    return LabelStudioSensor(
        task_id=task_id,
        task_display_name=title,
        project_url="{{ ti.xcom_pull(task_ids='send')['project_url'] }}",
        share="{{ params.share }}",
        hours="{{ params.hours }}",
        poll_interval_s="{{ params.poll_s }}",
    )


def _accept() -> HITLOperator:
    return HITLOperator(
        task_id="accept",
        task_display_name="Accept the answers",
        subject="Accept these answers?",
        body="{{ ti.xcom_pull(task_ids='release.measure')['summary'] | join('\n\n') }}",
        options=[ACCEPT, REJECT],
        defaults=ACCEPT,
        params={"reason": Param("", type=["string", "null"], title="Why", description="Kept as it is: name nobody.")},
        response_timeout=timedelta(days=1),
        execution_timeout=None,
    )
