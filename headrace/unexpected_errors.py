"""Exceptions that are not ours, in our words: what a project's code, a library or the operating system raised."""

import errno
import os
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import TypeGuard

from headrace.errors import HeadraceError
from headrace.project_modules import is_installed, project_path

ENDINGS = (SystemExit, GeneratorExit)
"""What ends a process or a generator. In the code of a project `sys.exit()` ends neither: it is a failure."""

MAX_LENGTH = 400
"""Characters of a message that are shown: Polars appends query plans, libraries whole documents."""

ENGINE = os.path.dirname(os.path.realpath(__file__)) + os.sep  # noqa: PTH120  compared with each frame of a stack

FREE_SPACE = "Free some (`headrace gc` lists objects that can be deleted), or give the disk more"
PERMISSIONS = "Correct the permissions or the mount"
ADVICE = {
    errno.ENOSPC: f"The disk has no room or no inodes left. {FREE_SPACE}",
    errno.EDQUOT: f"The disk quota is used up. {FREE_SPACE}",
    errno.EFBIG: "The file would be larger than this process or the file system allows. Raise `ulimit -f`",
    errno.EROFS: "The file system is mounted read-only. Mount it for writing",
    errno.EMFILE: "This process has too many files open. Raise the limit, for example `ulimit -n 4096`",
    errno.ENFILE: "This machine has too many files open. Raise `fs.file-max`, or end other programs",
    errno.ENAMETOOLONG: "The file system does not allow so long a name. Use a shorter folder or partition name",
    errno.EACCES: f"This user may not do that. {PERMISSIONS}",
    errno.EPERM: f"This user may not do that. {PERMISSIONS}",
    errno.EIO: "The disk has a fault. Look at the system's log (`dmesg`), and use another disk",
    errno.ESTALE: "The network file system lost the file. Mount it again",
    errno.ENOMEM: "This machine has too little memory left. Give it more, or use fewer threads",
    errno.ENOTDIR: "A file is where a folder was expected. Move it",
    errno.EISDIR: "A folder is where a file was expected. Move it",
    errno.ELOOP: "Symbolic links refer to each other. Remove them",
}
"""Error number → what it means, and what a person does about it before the same command succeeds."""


class FileSystemError(HeadraceError):
    """The operating system refused to read or write a file."""


def is_failure(error: BaseException) -> bool:
    """Whether an exception is a failure, and no request to end the process.

    Every `BaseException` may be one: a panic of a Rust library is. `sys.exit()` is one where code of the project calls
    it, because the run would end there with that exit code, 0 as well, and without a message. A signal handler that
    calls it is obeyed.
    """
    if isinstance(error, ENDINGS):
        return _last_user_frame(error) is not None and not _is_from_signal_handler(error)
    return not isinstance(error, KeyboardInterrupt)


def is_known_os_error(error: BaseException) -> TypeGuard[OSError]:
    """Whether the operating system refused something that a person can put right."""
    return isinstance(error, OSError) and error.errno in ADVICE


def to_filesystem_error(error: OSError) -> FileSystemError:
    """The error of the operating system, with the file and what to do about it."""
    path = error.filename2 or error.filename
    place = f"{os.fspath(path)!s}: " if isinstance(path, str | os.PathLike) else ""
    return FileSystemError(
        f"{place}{error.strerror or error} ({errno.errorcode[error.errno or 0]}){user_location(error)}."
        f" {ADVICE[error.errno or 0]}, then run the same command again."
    )


def describe_error(error: BaseException) -> str:
    """Type and message of an exception, and the last line of the project's code that it came through."""
    return f"{name_error(error)}{user_location(error)}"


def name_error(error: BaseException) -> str:
    """Type and message of an exception, whatever its class does."""
    message = _shorten(error)
    return f"{type(error).__name__}{f': {message}' if message else ''}"


def user_location(error: BaseException) -> str:
    """The last frame of code that is neither the engine's nor installed, in brackets; empty if there is none."""
    found = next((place for one in _chain(error) if (place := _last_user_frame(one))), None)
    if found is None:
        return ""
    code, line = found
    return f" ({project_path(code.co_filename)}, line {line}, in {code.co_name})"


def _shorten(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  whatever a class of the project does
        return "its message cannot be shown"
    paragraph = " ".join(text.strip().split("\n\n", 1)[0].split()).rstrip(".")
    return paragraph if len(paragraph) <= MAX_LENGTH else f"{paragraph[:MAX_LENGTH]} …"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it was raised from."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _is_from_signal_handler(error: BaseException) -> bool:
    """Whether a handler raised it: Python calls it with the number of the signal and the interrupted frame."""
    trace = error.__traceback__
    while trace is not None:
        for value in trace.tb_frame.f_locals.values():
            if any(isinstance(one, FrameType) for one in (value if isinstance(value, tuple) else (value,))):
                return True
        trace = trace.tb_next
    return False


def _last_user_frame(error: BaseException) -> tuple[CodeType, int] | None:
    found, trace = None, error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        path = os.path.realpath(code.co_filename)
        if not code.co_filename.startswith("<") and not path.startswith(ENGINE) and not is_installed(path):
            found = code, trace.tb_lineno
        trace = trace.tb_next
    return found
