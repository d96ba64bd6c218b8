#!/bin/sh
# `headrace` inside a container: the code of the workspace, not a copy of it in the image.
exec python -m headrace "$@"
