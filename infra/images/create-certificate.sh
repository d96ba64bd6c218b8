#!/bin/sh
# Create the key of the Dask cluster and its certificate, which is its own authority, in the folder $1, once. Whoever reads
# them can run code on the cluster. To replace them, delete the folder and start again. Killed at any line, the next start
# completes it.
set -eu
umask 077

folder="${1:?name a folder: create-certificate /srv/dask-tls}"
[ -e "$folder/key.pem" ] && exit 0
rm -f "$folder/.key.pem"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=headrace-dask \
    -keyout "$folder/.key.pem" -out "$folder/certificate.pem"
mv "$folder/.key.pem" "$folder/key.pem"
