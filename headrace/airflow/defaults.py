"""What all DAGs have in common: who owns them, how often a task is retried, how long it may take."""

from datetime import timedelta
from typing import Any

OWNER = "data-platform"

RETRIES: dict[str, Any] = {
    "retries": 6,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=15),
}
"""Half an hour in all. Every task has them, since `HeadraceOperator` fails at once where a retry cannot help."""

NOT_AT_ONCE = timedelta()
"""`run_immediately` of a timetable: a new Airflow waits for the next time. For False, Airflow 3.3 makes up for the last
one all the same, if no more than a tenth of the interval has passed since (`CronTriggerTimetable._calc_first_run`)."""

RUN_TYPES = ("scheduled", "manual", "asset_triggered", "asset_materialization", "operator_triggered")
"""All but a backfill, each of whose runs would take everything that has arrived. It cannot be made to queue: Airflow
3.3 counts its runs apart from all others, and only against the `max_active_runs` that whoever creates it chose, by
default 10 (`SchedulerJobRunner._start_queued_dagruns`)."""

DAG_DEFAULTS: dict[str, Any] = {
    "catchup": False,  # a run takes everything that has arrived, so one run makes up for any number of missed ones
    "max_active_runs": 1,  # two runs would do the same work, and the later release be refused
    "allowed_run_types": RUN_TYPES,
    "owner_links": {OWNER: "mailto:data-platform@example.com"},
    "default_args": {
        "owner": OWNER,
        "execution_timeout": timedelta(hours=6),
        "max_active_tis_per_dag": 1,  # holds in a backfill that began before it was refused, too
        **RETRIES,
    },
}
