"""The gate: a finding refuses its step until a person accepts it; acceptances are for these bytes and are kept once."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from minimal_dataset import create_table_store
from release_clones import Origin, dataset
from run_clones import RunOfClone
from typer.testing import CliRunner, Result
from workspaces import mark_as_project

from headrace.cli import app
from headrace.errors import HeadraceError
from headrace.guards.finding import Acceptance, FindingRecord, GuardFinding, record_file
from headrace.guards.finding_log import (
    DamagedFindingsError,
    FileLog,
    FindingLog,
    open_finding_log,
    open_publish_log,
)
from headrace.guards.gate import FindingsError, UnknownFindingError, accept_finding, enforce
from headrace.maintenance.damaged_files import find_damaged_files, repair_file
from headrace.maintenance.repair import QUARANTINE
from headrace.storage import git, git_commits
from headrace.storage.git_refs import RefChange, RemoteRefs
from headrace.storage.table_store import TableStore

TABLE = "raw/tiny/sales"


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    return create_table_store(tmp_path)


def finding(state_hash: str = "aaaaaaaaaaaa", **fields: str) -> GuardFinding:
    values = {"check": "vanished", "table": TABLE, "text": "29 of 30 partitions would vanish", **fields}
    return GuardFinding(state_hash=state_hash, **values)  # type: ignore[arg-type]


def pass_gate(table_store: TableStore, *findings: GuardFinding, step: str = "ingest") -> list[Acceptance]:
    kept = "The table stays as it was."
    return enforce(findings, dataset="tiny", step=step, tables=[TABLE], table_store=table_store, consequence=kept)


def accept(table_store: TableStore, found: GuardFinding, reason: str = "moved", by: str = "ann") -> Acceptance:
    return accept_finding(open_finding_log(table_store, "tiny"), found.id, by=by, reason=reason).acceptance


def test_a_step_without_findings_leaves_no_record(table_store: TableStore) -> None:
    assert pass_gate(table_store) == []
    assert not record_file(table_store.root, "tiny").exists()


def test_a_refusal_names_what_was_found_and_the_command_that_accepts_it(table_store: TableStore) -> None:
    with pytest.raises(FindingsError) as refused:
        pass_gate(table_store, finding())

    assert str(refused.value) == (
        "29 of 30 partitions would vanish. The table stays as it was. Find out why. If it is intended, run `headrace"
        ' accept tiny vanished:raw/tiny/sales@aaaaaaaaaaaa --reason "…"`, and then the same command again.'
    )


def test_an_accepted_finding_passes_and_the_step_gets_who_accepted_it_when_and_why(table_store: TableStore) -> None:
    with pytest.raises(FindingsError):
        pass_gate(table_store, finding())

    made = accept(table_store, finding())

    assert pass_gate(table_store, finding()) == [made]
    assert (made.by, made.reason, made.text) == ("ann", "moved", "29 of 30 partitions would vanish")
    assert made.at.endswith("+00:00")


def test_changed_bytes_are_another_finding(table_store: TableStore) -> None:
    with pytest.raises(FindingsError):
        pass_gate(table_store, finding())
    accept(table_store, finding())

    with pytest.raises(FindingsError, match="@bbbbbbbbbbbb"):
        pass_gate(table_store, finding("bbbbbbbbbbbb"))


def test_the_id_of_earlier_bytes_is_refused_and_the_message_has_the_new_one(table_store: TableStore) -> None:
    with pytest.raises(FindingsError):
        pass_gate(table_store, finding("bbbbbbbbbbbb"))

    with pytest.raises(UnknownFindingError, match="sales@bbbbbbbbbbbb: the bytes have changed since"):
        accept(table_store, finding())


def test_an_unknown_finding_cannot_be_accepted(table_store: TableStore) -> None:
    with pytest.raises(UnknownFindingError, match=r"expected a finding that a step was refused for, found none\."):
        accept(table_store, finding())
    assert not record_file(table_store.root, "tiny").exists()


def test_of_several_ids_none_is_accepted_if_one_is_unknown(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FindingsError):
        pass_gate(table_store, finding())
    for name in ("dvc.yaml", "pipelines/__init__.py", "pipelines/tiny/__init__.py"):
        (table_store.root / name).parent.mkdir(exist_ok=True)
        (table_store.root / name).touch()
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(table_store.root))

    ended = CliRunner().invoke(app, ["accept", "tiny", finding().id, "nonsense", "--reason", "moved"])

    assert isinstance(ended.exception, UnknownFindingError)
    assert open_finding_log(table_store, "tiny").read().acceptances == ()


def test_the_first_of_two_acceptances_counts(table_store: TableStore) -> None:
    with pytest.raises(FindingsError):
        pass_gate(table_store, finding())

    first = accept(table_store, finding())

    assert accept(table_store, finding(), "another reason", "bob") == first
    assert not accept_finding(open_finding_log(table_store, "tiny"), finding().id, by="bob", reason="x").is_new


def test_each_finding_of_a_step_needs_its_own_acceptance(table_store: TableStore) -> None:
    other = finding(check="future", partition="2999-01-01")
    with pytest.raises(FindingsError, match=r"accept tiny vanished:\S+ future:raw/tiny/sales/2999-01-01@"):
        pass_gate(table_store, finding(), other)
    accept(table_store, finding())

    with pytest.raises(FindingsError) as refused:
        pass_gate(table_store, finding(), other)

    assert refused.value.findings == (finding(check="future", partition="2999-01-01", step="ingest"),)


def test_a_warning_does_not_refuse_and_is_recorded(table_store: TableStore) -> None:
    warning = finding(level="warning")

    assert pass_gate(table_store, warning) == []

    assert [each.level for each in open_finding_log(table_store, "tiny").read().open] == ["warning"]


def test_a_finding_that_is_gone_is_no_longer_open(table_store: TableStore) -> None:
    with pytest.raises(FindingsError):
        pass_gate(table_store, finding())

    pass_gate(table_store)

    assert open_finding_log(table_store, "tiny").read() == FindingRecord()


def test_a_step_replaces_its_own_findings_only(table_store: TableStore) -> None:
    with pytest.raises(FindingsError):
        pass_gate(table_store, finding(), step="release")

    pass_gate(table_store, step="ingest")

    assert [each.step for each in open_finding_log(table_store, "tiny").read().open] == ["release"]


DAMAGES = (b"", b"{", b"[1,2]", b"null", b'{"findings": 3}', b'{"findings": [1]}', b"\xff", b'{"x":' + b"[" * 9999)


@pytest.mark.parametrize("content", DAMAGES)
def test_a_damaged_record_is_named_and_the_doctor_puts_it_aside(table_store: TableStore, content: bytes) -> None:
    path = record_file(table_store.root, "tiny")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    with pytest.raises(DamagedFindingsError, match=r"findings/tiny\.json: expected .*`headrace doctor --repair` puts"):
        pass_gate(table_store)
    (damaged,) = (each for each in find_damaged_files(table_store.root) if "findings" in each.path)
    assert "expected the findings" in damaged.reason
    assert repair_file(table_store.root, damaged).repaired

    assert pass_gate(table_store) == []
    assert (table_store.root / QUARANTINE / damaged.path).read_bytes() == content


def test_a_damaged_record_of_a_run_is_named_with_the_command_that_deletes_it(origin: Origin) -> None:
    table_store = RunOfClone(origin.clone("here"), dataset("tiny"), "nightly").open().table_store
    commit = git_commits.build_commit(table_store.root, [], "", {"findings.json": b"[1,2]"}, "Damage")
    RemoteRefs(table_store.root).swap({table_store.findings_ref: RefChange("", commit)})

    with pytest.raises(DamagedFindingsError, match="found Expected `object`, got `array`") as damaged:
        open_finding_log(table_store, "tiny").read()

    command = re.search(r"Delete it: `git (.*?)`", str(damaged.value))
    assert command
    git.git(table_store.root, *command[1].split())
    assert open_finding_log(table_store, "tiny").read() == FindingRecord()


def accept_at_once(log: FindingLog, people: int) -> set[Acceptance]:
    with ThreadPoolExecutor(people) as pool:
        done = [pool.submit(accept_finding, log, finding().id, by=f"{n}", reason="r") for n in range(people)]
    return {each.result().acceptance for each in done}


@pytest.mark.slow
def test_of_people_who_accept_at_once_in_a_workspace_one_is_recorded(table_store: TableStore) -> None:
    with pytest.raises(FindingsError):
        pass_gate(table_store, finding())
    script = (
        "import sys; from pathlib import Path; from minimal_dataset import create_table_store;"
        "from headrace.guards.finding_log import FileLog; from headrace.guards.gate import accept_finding;"
        "print(accept_finding(FileLog(create_table_store(Path(sys.argv[1])), 'tiny'), sys.argv[2], by=sys.argv[3],"
        " reason='r').acceptance.by)"
    )
    command = [sys.executable, "-c", script, str(table_store.root), finding().id]
    people = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in ("ann", "bob")]

    printed = {person.communicate()[0].strip() for person in people}

    assert len(printed) == 1
    assert {each.by for each in FileLog(table_store, "tiny").read().acceptances} == printed


def test_a_run_keeps_its_acceptances_in_git_for_every_machine(origin: Origin) -> None:
    here, there = (RunOfClone(origin.clone(name), dataset("tiny"), "nightly") for name in ("here", "there"))
    with pytest.raises(FindingsError):
        pass_gate(here.open().table_store, finding())

    made = accept(there.open().table_store, finding())

    assert pass_gate(here.open().table_store, finding()) == [made]
    assert here.state is not None
    assert here.state.findings
    assert here.state.tables == {}


@pytest.mark.parametrize("push_runs", [True, False])
def test_status_shows_the_findings_of_runs_and_of_the_publish_and_accept_names_the_run(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, push_runs: bool
) -> None:
    monkeypatch.setenv("HEADRACE_PUSH_RUNS", str(int(push_runs)))
    here = origin.clone("here")
    table_store = RunOfClone(here, dataset("tiny"), "nightly").open().table_store
    online = finding("cccccccccccc", table="online/tiny/totals")
    with pytest.raises(FindingsError):
        pass_gate(table_store, finding())
    with pytest.raises(FindingsError):
        enforce(
            [online],
            dataset="tiny",
            step="publish",
            tables=[online.table],
            table_store=here.table_store,
            consequence="",
            log=open_publish_log(here.table_store, "tiny"),
        )
    there = origin.clone("there") if push_runs else here
    mark_as_project(there.root)
    (there.root / "pipelines/tiny").mkdir()
    (there.root / "pipelines/tiny/__init__.py").touch()
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(there.root))

    def typed(*words: str) -> Result:
        return CliRunner().invoke(app, words)

    shown = json.loads(typed("status", "tiny", "--json").stdout)
    assert [(each["id"], each["run"]) for each in shown["findings"]] == [(online.id, ""), (finding().id, "nightly")]
    assert f"run nightly: ingest found {finding().id}: 29 of 30" in typed("status", "tiny").stdout

    refused = typed("accept", "tiny", finding().id, "--reason", "moved").exception
    assert f"{finding().id} was found in the run nightly: type the command with `--run nightly`" in str(refused)
    assert typed("accept", "tiny", online.id, "--reason", "moved").exit_code == 0
    accept(RunOfClone(there, dataset("tiny"), "nightly").open().table_store, finding())

    shown = json.loads(typed("status", "tiny", "--json").stdout)
    assert shown["findings"] == []
    assert [(each["finding"], each["run"]) for each in shown["accepted"]] == [
        (online.id, ""),
        (finding().id, "nightly"),
    ]


def test_status_shows_findings_of_the_workspace_while_the_git_remote_does_not_answer(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = origin.clone("here")
    with pytest.raises(FindingsError):
        pass_gate(here.table_store, finding())
    here.git("remote", "set-url", "origin", "git://127.0.0.1:9/none")
    mark_as_project(here.root)
    (here.root / "pipelines/tiny").mkdir()
    (here.root / "pipelines/tiny/__init__.py").touch()
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(here.root))

    shown = json.loads(CliRunner().invoke(app, ["status", "tiny", "--json"]).stdout)

    assert [each["id"] for each in shown["findings"]] == [finding().id]
    assert shown["unknown"]["findings of runs and of the publish"]["transient"]


@pytest.mark.parametrize("command", [("accept", "nope", "future:x@0", "--reason", "x"), ("status", "nope")])
def test_a_dataset_that_is_not_declared_is_named(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    git.git(table_store.root, "init", "--quiet")
    mark_as_project(table_store.root)
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(table_store.root))

    with pytest.raises(HeadraceError, match="There is no dataset 'nope' in "):
        app(command, standalone_mode=False)


def test_of_people_who_accept_at_once_in_a_run_one_is_recorded(origin: Origin) -> None:
    run = RunOfClone(origin.clone("here"), dataset("tiny"), "nightly")
    table_store = run.open().table_store
    with pytest.raises(FindingsError):
        pass_gate(table_store, finding())

    assert len(accept_at_once(open_finding_log(table_store, "tiny"), 3)) == 1


def test_a_run_that_moves_to_a_newer_commit_keeps_its_acceptances(origin: Origin) -> None:
    run = RunOfClone(origin.clone("here"), dataset("tiny"), "nightly")
    with pytest.raises(FindingsError):
        pass_gate(run.open().table_store, finding())
    made = accept(run.open().table_store, finding())
    origin.clone("there").push_file("README.md", "more")

    run.start()

    assert pass_gate(run.open().table_store, finding()) == [made]


def test_the_record_is_readable_json(table_store: TableStore) -> None:
    with pytest.raises(FindingsError):
        pass_gate(table_store, finding())
    accept(table_store, finding())

    record = json.loads(record_file(table_store.root, "tiny").read_bytes())

    assert {name: len(items) for name, items in record.items()} == {"acceptances": 1, "findings": 1}
