"""command → the same command, unable to outlive the process that started it.

Run by path (`python -I -S launch.py PARENT SIGNAL ACCOUNT COMMAND...`), with nothing but the standard library, because
it stands in front of every server. On Linux the kernel delivers SIGNAL when the parent dies; elsewhere this process
stays and looks. ACCOUNT is `-`, or the user to run as: PostgreSQL refuses to run as root.
"""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522
POLL_SECONDS = 0.5
GRACE_SECONDS = 5


def become(account: str) -> None:
    """Run as another user who may still pass the folders on the way (a clone under /root is mode 700)."""
    user = pwd.getpwnam(account)
    linux = sys.platform == "linux"
    if linux:
        _libc().prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    if linux:
        _keep_passage()


def _keep_passage() -> None:
    """Keep CAP_DAC_OVERRIDE over the exec; where the host does not grant it, file permissions decide as usual."""
    bit = 1 << CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    _libc().capset(ctypes.byref(header), ctypes.byref(sets))
    _libc().prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, death: int) -> None:
    """Ask the kernel for `death` when the parent goes; leave at once if it went before we could ask."""
    _libc().prctl(PR_SET_PDEATHSIG, death, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def watch(parent: int, death: int, command: list[str]) -> int:
    """Stand between parent and server where the kernel offers nothing: look twice a second."""
    server = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda received, _frame: server.send_signal(received))
    while server.poll() is None and os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    if server.poll() is None:
        server.send_signal(death)
        try:
            server.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
    return server.wait()


def main() -> None:
    """Read the arguments, then become the command."""
    parent, death, account, *command = sys.argv[1:]
    if account != "-":
        become(account)
    if sys.platform != "linux":
        sys.exit(watch(int(parent), int(death), command))
    die_with_parent(int(parent), int(death))
    os.execvp(command[0], command)  # noqa: S606 -- becoming the command, without a shell, is the point


if __name__ == "__main__":
    main()
