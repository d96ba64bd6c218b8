"""`headrace new`: writes a dataset's folder from a sample."""

import os
import shutil
from dataclasses import replace
from importlib import invalidate_caches
from keyword import iskeyword
from pathlib import Path

from headrace import failpoints
from headrace.errors import HeadraceError
from headrace.project import dvc_stages
from headrace.settings import Settings
from headrace.storage import git
from headrace.storage.files import write_whole
from headrace.templates.dataset_draft import NAME, Assumption, DatasetDraft, draft_dataset
from headrace.templates.declaration import dataset_files
from headrace.templates.python_code import snake_case
from headrace.workspace import PACKAGE


class NewDatasetError(HeadraceError):
    """The dataset's name cannot be used, or is taken."""


def create_dataset(
    name: str, sample: str, settings: Settings, *, table: str | None = None, owner: str | None = None
) -> DatasetDraft:
    """Write the dataset `name` as a sample suggests, and its tables into `headrace.lock`.

    The arguments are those of `draft_dataset`, and `owner`: who is responsible for the dataset, by default git's user.

    Raises:
        NewDatasetError: The name cannot be used.
        HeadraceError: As `draft_dataset`.
    """
    root = settings.workspace.resolve()
    target = root / PACKAGE / name
    _check_name(name, target)
    draft = draft_dataset(name, sample, settings, table)
    by_owner = _owner(root, owner)
    notes = tuple(_write_address(root, variable, address) for variable, address in draft.database.items())
    _write_folder(target, dataset_files(draft.source, by_owner.assumed))
    files = dvc_stages.write(root)
    if name in files.broken:
        raise files.broken[name]
    return replace(draft, assumptions=(*draft.assumptions, by_owner), warnings=(*draft.warnings, *notes))


def _write_address(root: Path, variable: str, address: str) -> str:
    """Write the database's address to the project's `.env`, if git ignores that; returns what to do for others."""
    if not _is_ignored(root, ".env"):
        return f"Set {variable} to the database's address: .env was not written, because git does not ignore it."
    file = root / ".env"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    kept = [line for line in lines if not line.startswith(f"{variable}=")]
    _write_private(file, "\n".join([*kept, f"{variable}={address}"]) + "\n")
    return f"The database's address is in .env, which git ignores, as {variable}: set it on other machines."


def _write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read: the address may hold a password."""
    with failpoints.failpoint("write .env"):
        file.touch(mode=0o600)
        file.chmod(0o600)
    write_whole(file, text.encode())
    file.chmod(0o600)


def _is_ignored(root: Path, path: str) -> bool:
    return git.run(root, "check-ignore", "--quiet", path).returncode == 0


def _check_name(name: str, target: Path) -> None:
    if not NAME.fullmatch(name) or iskeyword(name):
        plain = snake_case(name).lstrip("_0123456789")
        hint = f" `headrace new {plain} --from …`?" if plain and not iskeyword(plain) else ""
        raise NewDatasetError(
            "A dataset's name has lower-case letters, digits and underscores, begins with a letter and is no keyword of"
            f" Python; found {name!r}.{hint}"
        )
    if not (target.parent / "__init__.py").exists():
        raise NewDatasetError(
            f"{target.parent.parent} is not a project: expected {PACKAGE}/__init__.py. Change into a project, or make"
            " one with `headrace init NAME`."
        )
    if target.exists():
        raise NewDatasetError(f"{target} exists. Nothing was written. Choose another name, or remove the folder first.")


def _owner(root: Path, owner: str | None) -> Assumption:
    assumed = owner or git.config_value(root, "user.name") or os.environ.get("USER", "") or "unknown"
    return Assumption("owner", assumed, "--owner" if owner else "git's user.name", "who is responsible for the dataset")


def _write_folder(target: Path, files: dict[str, str]) -> None:
    """Write the dataset's folder beside its place, then rename it: a folder whose name begins with a dot is none."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        with failpoints.failpoint("write the dataset"):
            for path, text in files.items():
                file = draft / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, "utf-8")
        with failpoints.failpoint("rename the dataset"):
            draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    invalidate_caches()
