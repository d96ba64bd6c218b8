#!/bin/sh
# Serve the folders of /data as S3 buckets. The bucket exists before the first request.
set -eu

bucket="${HEADRACE_BUCKET:?set HEADRACE_BUCKET to the name of the bucket}"
# Without a key rclone serves everybody, so a missing key must stop this script.
: "${RCLONE_AUTH_KEY:?set RCLONE_AUTH_KEY to a quoted pair: \"access,secret\"}"
root="${STORAGE_ROOT:-/data}"

mkdir -p "$root/$bucket"
exec rclone serve s3 --addr "${STORAGE_ADDRESS:-:8333}" "$root"
