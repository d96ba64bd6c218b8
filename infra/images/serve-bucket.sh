#!/bin/sh
# Serve the folders of /data as S3 buckets. The bucket exists before the first client asks for it.
set -eu

bucket="${HEADRACE_BUCKET:?set HEADRACE_BUCKET to the name of the bucket}"
# rclone lets anybody in when it has no key, so a missing key must stop us here.
: "${RCLONE_AUTH_KEY:?set RCLONE_AUTH_KEY to a quoted pair: \"access,secret\"}"
root="${STORAGE_ROOT:-/data}"

mkdir -p "$root/$bucket"
exec rclone serve s3 --addr "${STORAGE_ADDRESS:-:8333}" "$root"
