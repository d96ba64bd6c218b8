"""Pods of tasks without a cluster: what `infra/helm/task-pod.yaml` says is run as processes on empty folders.

Each volume of a pod is a folder of its own, gone with the pod, and takes the place of its mount path in commands and
variables. Where the tests run as root, the root file system is read-only but for these folders, as in the pod.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from workspaces import REPOSITORY

TEMPLATE = REPOSITORY / "infra/helm/task-pod.yaml"
GIT_HOST, GIT_PATH = "git@git.example", "/team/project.git"
"""Address of the repository in the template."""

# As sshd does for git: check who asks, then run what is asked. Options of the client come first, then host and command.
SSH = f"""#!/bin/sh
set -eu
key= known= strict=
while [ "$#" -gt 2 ]; do
    case "$1" in
    -i) key="$2"; shift ;;
    -o)
        case "$2" in
        UserKnownHostsFile=*) known="${{2#*=}}" ;;
        StrictHostKeyChecking=*) strict="${{2#*=}}" ;;
        esac
        shift
        ;;
    esac
    shift
done
[ "$1" = {GIT_HOST} ] && [ "$(cat "$key")" = "the deploy key" ] && [ -r "$known" ] && [ "$strict" = yes ]
exec sh -c "$(printf '%s' "$2" | sed "s#'{GIT_PATH}'#'$HOST_REPOSITORY'#")"
"""

READ_ONLY = """
mount --make-rprivate /
for folder; do [ "$folder" = -- ] && break; mount --bind "$folder" "$folder"; done
mount -o bind,remount,ro /
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


@dataclass(frozen=True)
class TaskPods:
    """Starts pods.

    Attributes:
        folder: Where the pods' volumes are.
        origin: The repository on the git host.
        secret: The secret `headrace-environment`.
    """

    folder: Path
    origin: Path
    secret: Mapping[str, str]

    def run(self, command: Sequence[str]) -> str:
        """What a command prints in a new pod, which is then gone with all that it wrote."""
        pod = yaml.safe_load(TEMPLATE.read_text())["spec"]
        with self._volumes(pod) as volumes:
            (init,), (base,) = pod["initContainers"], pod["containers"]
            self._run_container(init, volumes, init["command"])
            return self._run_container(base, volumes, command)

    @contextmanager
    def _volumes(self, pod: Mapping[str, Any]) -> Iterator[dict[str, Path]]:
        root = self.folder / "pod"
        volumes = {volume["name"]: root / volume["name"] for volume in pod["volumes"]}
        for path in (*volumes.values(), root / "bin"):
            path.mkdir(parents=True)
        (volumes["git-key"] / "ssh-privatekey").write_text("the deploy key")
        (volumes["git-key"] / "known_hosts").touch()
        for name, text in {
            "ssh": SSH,
            "open-workspace": (REPOSITORY / "infra/images/open-workspace.sh").read_text(),
        }.items():
            (root / "bin" / name).write_text(text)
            (root / "bin" / name).chmod(0o755)
        yield volumes
        shutil.rmtree(root)

    def _run_container(self, container: Mapping[str, Any], volumes: Mapping[str, Path], command: Sequence[str]) -> str:
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        declared = {item["name"]: _in_folders(item["value"], mounts) for item in container["env"]}
        path = (self.folder / "pod/bin", Path(sys.executable).parent, os.environ["PATH"])
        environment = {
            **(self.secret if "envFrom" in container else {}),
            "PATH": os.pathsep.join(map(str, path)),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOST_REPOSITORY": str(self.origin),
            **declared,
        }
        writable = [str(folder) for folder in (*mounts.values(), self.origin) if folder.is_dir()]
        done = subprocess.run(
            [*_read_only(writable), *command],
            cwd=mounts["/workspace"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{container['name']}: {' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


def _in_folders(value: str, mounts: Mapping[str, Path]) -> str:
    """A value in which the folders of the volumes take the place of their mount paths."""
    paths = "|".join(re.escape(path) for path in sorted(mounts, key=len, reverse=True))
    return re.sub(rf"(?<![\w/])({paths})(?=[/\s]|$)", lambda found: str(mounts[found[1]]), value)


def _read_only(writable: Sequence[str]) -> list[str]:
    """What a command begins with to run where only these folders can be written; nothing without root's rights."""
    if not can_mount():
        return []
    return ["unshare", "--mount", "sh", "-euc", READ_ONLY, "sh", *writable, "--"]


def can_mount() -> bool:
    """Whether a process may have mounts of its own."""
    command = ["unshare", "--mount", "mount", "--make-rprivate", "/"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True, check=False).returncode == 0
