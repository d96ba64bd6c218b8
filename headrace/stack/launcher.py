"""Runs a command that cannot outlive the process that started it.

Run by path (`python -I -S launcher.py PARENT SIGNAL USER COMMAND...`), with the standard library alone, because it runs
before every server. On Linux the kernel delivers SIGNAL when the parent ends; elsewhere this process stays and polls.
USER is `-`, or the user to run as: PostgreSQL refuses to run as root.
"""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time

# Constants of prctl(2).
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38

POLL_S = 0.5
STOP_TIMEOUT_S = 5


def switch_user(name: str) -> None:
    """Run as another user, without capabilities, and unable to gain any by a program that it starts."""
    user = pwd.getpwnam(name)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)  # from root, this also clears all capabilities
    if sys.platform == "linux":
        _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, death_signal: int) -> None:
    """Ask the kernel for `death_signal` when the parent ends; exit at once if it has ended already."""
    _libc().prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def run_and_watch_parent(parent: int, death_signal: int, command: list[str]) -> int:
    """Run the command below this process and poll for the parent, where the kernel offers no signal."""
    server = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda received, _frame: server.send_signal(received))
    while server.poll() is None and os.getppid() == parent:
        time.sleep(POLL_S)
    if server.poll() is None:
        server.send_signal(death_signal)
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
    return server.wait()


def main() -> None:
    """Read the arguments, then become the command."""
    parent, death_signal, user, *command = sys.argv[1:]
    if user != "-":
        switch_user(user)
    if sys.platform != "linux":
        sys.exit(run_and_watch_parent(int(parent), int(death_signal), command))
    die_with_parent(int(parent), int(death_signal))
    os.execvp(command[0], command)  # noqa: S606  becoming the command, without a shell, is the point


if __name__ == "__main__":
    main()
