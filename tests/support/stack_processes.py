"""The processes of a local stack, and where they listen."""

from pathlib import Path

import psutil

from headrace.stack.paths import StackPaths
from headrace.stack.process import process_tree
from headrace.stack.state import StackState, read_state


def state_of(home: Path) -> StackState:
    """The state of a stack that is running."""
    state = read_state(StackPaths(home))
    assert state is not None
    return state


def processes(state: StackState) -> list[psutil.Process]:
    """Every process of the stack, with the children of its servers."""
    return process_tree([state.watchdog, *(server.process for server in state.servers)])


def listening_addresses(home: Path) -> list[str]:
    """The address of each socket that a process of the stack listens on."""
    return [
        connection.laddr.ip
        for member in processes(state_of(home))
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
