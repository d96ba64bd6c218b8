#!/bin/sh
# Print new secrets for compose.yaml, one setting per line: `infra/secrets.sh > infra/.env`
# Keep that file: PostgreSQL and Label Studio store the passwords of their first start.
set -eu
umask 077

letters() { # $1 letters and digits, which every address and file can hold as they are
    LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c "$1"
}

hexadecimal() {
    LC_ALL=C tr -dc '0-9a-f' </dev/urandom | head -c "$1"
}

cat <<SETTINGS
AIRFLOW_ADMIN_PASSWORD=$(letters 24)
AIRFLOW_FERNET_KEY=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')
AIRFLOW_JWT_SECRET=$(letters 64)
AIRFLOW_SECRET_KEY=$(letters 48)
AWS_ACCESS_KEY_ID=$(letters 20)
AWS_SECRET_ACCESS_KEY=$(letters 40)
HEADRACE_PSEUDONYM_KEY=$(letters 48)
LABEL_STUDIO_API_KEY=$(hexadecimal 40)
LABEL_STUDIO_PASSWORD=$(letters 24)
LABEL_STUDIO_USERNAME=admin@headrace.localhost
POSTGRES_PASSWORD=$(letters 32)
SETTINGS
