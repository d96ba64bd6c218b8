"""A release names its code: every file that decides its tables is as committed on the code branch, or it is refused."""

import pytest
from workspaces import Workspace, git

from headrace.release.audit import UncommittedCodeError
from headrace.release.release import create_release

WEATHER = "pipelines/flights/sources/weather.py"


def refused(workspace: Workspace) -> str:
    """What a release says that is refused for its code; nothing may have been pushed or left."""
    before = git(workspace.root, "ls-remote", "origin"), git(workspace.root, "rev-parse", "HEAD")
    with pytest.raises(UncommittedCodeError) as raised:
        create_release(workspace.dataset, workspace.table_store)
    assert (git(workspace.root, "ls-remote", "origin"), git(workspace.root, "rev-parse", "HEAD")) == before
    assert git(workspace.root, "tag") == ""
    return str(raised.value)


def comment(workspace: Workspace) -> None:
    """Change a file of the code, but no table."""
    with (workspace.root / WEATHER).open("a") as file:
        file.write("# measured hourly\n")


def test_code_that_is_not_committed_or_not_in_git_or_not_pushed_is_refused_by_file(built: Workspace) -> None:
    (built.root / "pipelines/flights/extra.py").write_text("NUMBER = 1\n")
    with (built.root / WEATHER).open("a") as file:
        file.write("from pipelines.flights import extra\n")

    said = refused(built)

    assert f"{WEATHER}: changed and not committed (`git commit`, `git push`)" in said
    assert "pipelines/flights/extra.py: not in git (`git add`" in said

    git(built.root, "add", "--all")
    git(built.root, "commit", "--quiet", "--message", "Import more")

    said = refused(built)
    assert f"pipelines/flights/extra.py, {WEATHER}: committed, but not on main (`git push origin HEAD:main`" in said

    git(built.root, "push", "--quiet", "origin", "HEAD:main")
    assert create_release(built.dataset, built.table_store).name == "flights/1"


def test_code_that_was_changed_on_the_code_branch_meanwhile_is_refused_until_the_tables_are_made_with_it(
    built: Workspace,
) -> None:
    colleague = built.clone("colleague")
    comment(colleague)
    colleague.publish_code("Comment")

    said = refused(built)

    assert f"{WEATHER}: changed on main since (`git pull --rebase origin main`, `headrace run flights`)" in said
    git(built.root, "pull", "--quiet", "--rebase", "origin", "main")
    assert create_release(built.dataset, built.table_store).name == "flights/1"


def test_a_detached_head_and_a_feature_branch_release_onto_the_branch_if_their_code_is_there(built: Workspace) -> None:
    git(built.root, "switch", "--quiet", "--detach")

    made = create_release(built.dataset, built.table_store)

    assert git(built.root, "ls-remote", "origin", "main").split()[0] == made.commit
    assert "refs/heads/HEAD" not in git(built.root, "ls-remote", "origin")
    git(built.root, "switch", "--quiet", "--create", "feature")
    (built.root / "README.md").write_text("Work that no table depends on.\n")
    git(built.root, "commit", "--quiet", "--all", "--message", "Work in progress")
    built.raw.add_days("2013-01-04")
    built.refresh()
    again = create_release(built.dataset, built.table_store)
    assert again.name == "flights/2"
    heads = git(built.root, "ls-remote", "--heads", "origin").split()
    assert heads == [again.commit, "refs/heads/main"]
    assert "Work in progress" not in git(built.root, "log", "--format=%s", "origin/main")
    assert git(built.root, "log", "-1", "--format=%s") == "Work in progress", "the branch stays as it was"


def test_a_feature_branch_with_code_of_its_own_is_refused_with_the_command_to_run(built: Workspace) -> None:
    git(built.root, "switch", "--quiet", "--create", "feature")
    comment(built)
    git(built.root, "commit", "--quiet", "--all", "--message", "Comment")
    git(built.root, "push", "--quiet", "origin", "feature")

    assert "or merge your branch there" in refused(built)


def test_what_a_colleague_changes_for_another_dataset_in_a_shared_file_does_not_matter(built: Workspace) -> None:
    colleague = built.clone("colleague")
    with (colleague.root / "params.yaml").open("a") as file:
        file.write("another:\n  seed: 1\n")
    colleague.edit("headrace.lock", "tables:\n", "tables:\n  another:\n    validate:\n    - orders\n")
    colleague.publish_code("Declare another dataset")

    assert create_release(built.dataset, built.table_store).name == "flights/1"
    assert git(built.root, "rev-parse", "HEAD") == git(built.root, "rev-parse", "origin/main")
