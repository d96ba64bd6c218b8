#!/bin/sh
# Write new secrets for compose.yaml to a file that only its owner can read, one setting per line:
#   infra/secrets.sh [FILE]     # by default .env beside this script
# A file that exists is never overwritten: PostgreSQL and Label Studio store the passwords of their first start.
set -eu
umask 077

file=${1:-$(dirname "$0")/.env}
if [ -e "$file" ] || [ -L "$file" ]; then
    echo "$file exists, and stays as it is: servers that ran with its passwords need them." >&2
    echo "Next: use it; or, if no server has run with it, remove it and run this again." >&2
    exit 1
fi
draft=$(mktemp "$file.XXXXXX")
trap 'rm -f "$draft"' EXIT

letters() { # $1 letters and digits, which every address and file can hold as they are
    LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c "$1"
}

hexadecimal() {
    LC_ALL=C tr -dc '0-9a-f' </dev/urandom | head -c "$1"
}

cat >"$draft" <<SETTINGS
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
ln "$draft" "$file" || { # fails if the file was created meanwhile
    echo "$file could not be created, and nothing was changed." >&2
    exit 1
}
echo "new secrets in $file; keep it" >&2
