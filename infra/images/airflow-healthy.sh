#!/bin/sh
# Whether the API server reports one of Airflow's processes as healthy: `airflow-healthy scheduler|triggerer|dag_processor`
# Asking it costs 0.1 CPU s; `airflow jobs check` imports Airflow for 2 CPU s, every time.
set -eu

process="${1:?name a process: scheduler, triggerer or dag_processor}"
curl --fail --silent --show-error --max-time 10 "${AIRFLOW_API_URL:-http://airflow-api-server:8080}/api/v2/monitor/health" |
    python -c '
import json, sys
found = json.load(sys.stdin).get(sys.argv[1]) or {}
sys.exit(None if found.get("status") == "healthy" else f"{sys.argv[1]}: expected healthy, found {found}")
' "$process"
