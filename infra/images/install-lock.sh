#!/bin/sh
# Install one lock (`install-lock LOCK`) into the environment on the PATH: by hash, byte-compiled, nothing cached.
set -eu

lock="${1:?name a lock file, such as requirements/runtime.txt}"

# Some packages come as source only. They are built with the setuptools that the lock pins, not with the newest.
build="$(mktemp)"
awk '/^[^ #]/ { taken = /^setuptools==/ } taken' "$lock" >"$build"
pip install --no-cache-dir --no-deps --require-hashes --requirement "$build"
pip install --no-cache-dir --no-deps --require-hashes --no-build-isolation --compile --requirement "$lock"
rm "$build"
