#!/bin/sh
# Install one lock (`install-lock LOCK`) into the environment on the PATH: every file by its hash, byte-compiled, nothing cached.
set -eu

lock="${1:?name a lock file, such as requirements/runtime.txt}"

# Some packages come as source only. The tool that builds them is the lock's own, not whatever is newest today.
build="$(mktemp)"
awk '/^[^ #]/ { taken = /^setuptools==/ } taken' "$lock" >"$build"
pip install --no-cache-dir --no-deps --require-hashes --requirement "$build"
pip install --no-cache-dir --no-deps --require-hashes --no-build-isolation --compile --requirement "$lock"
rm "$build"
