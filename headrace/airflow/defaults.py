"""What all DAGs of this project agree on: who answers for them, and what is tried again."""

from datetime import timedelta
from typing import Any

OWNER = "data-platform"

DAG_POLICY: dict[str, Any] = {
    "catchup": False,  # a run asks for everything that has arrived, so one run makes up for any number of missed ones
    "max_active_runs": 1,  # two runs would only wait for each other's tables
    "owner_links": {OWNER: "mailto:data-platform@example.com"},
    "default_args": {"owner": OWNER, "retries": 0, "execution_timeout": timedelta(hours=6)},
}

OVER_NETWORK: dict[str, Any] = {
    "retries": 4,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
}
"""For tasks that talk to a server. The others give the same answer every time: trying again only hides it."""
