"""A release that loses most of a table is refused until a person accepts it; the release records the acceptance."""

import json
from dataclasses import replace
from typing import ClassVar

import minimal_dataset
import polars as pl
import pytest
import typer
from msgspec import structs
from release_clones import Clone, Origin, dataset
from run_clones import RunOfClone, days
from workspaces import mark_as_project

from headrace.cli.accept import accept
from headrace.cli.inspect import status
from headrace.guards.finding import Acceptance, record_file
from headrace.guards.finding_log import open_finding_log
from headrace.guards.gate import FindingsError, accept_finding
from headrace.release.changes import table_changes
from headrace.release.guards import check_guards, read_acceptances
from headrace.runs.task import save_task
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import TableStore
from headrace.transform.kernel import SPAN

TINY = dataset("tiny")
MANY = dict.fromkeys(range(1, 11), 1)


@pytest.fixture
def clone(origin: Origin) -> Clone:
    """A clone in which ten days are released."""
    origin.first.run(TINY, MANY)
    origin.first.release(TINY)
    return origin.first


def accept_all(table_store: TableStore, refused: FindingsError) -> list[Acceptance]:
    log = open_finding_log(table_store, "tiny")
    return [accept_finding(log, each.id, by="ann", reason="a\ntest").acceptance for each in refused.findings]


def test_a_loss_is_one_finding_of_the_table_where_it_began(clone: Clone) -> None:
    clone.run(TINY, {1: 1})

    with pytest.raises(FindingsError) as refused:
        clone.release(TINY)

    assert [each.table for each in refused.value.findings] == ["raw/tiny/sales"]
    text = str(refused.value)
    assert "9 of 10 partitions would vanish (2026-01-02, 2026-01-03, 2026-01-04, …) since tiny/1" in text
    assert "9 of 10 partitions and 18 of 20 rows of features/tiny/totals" in text
    assert "Nothing was released." in text


def test_the_release_records_who_accepted_what_when_and_why(clone: Clone, origin: Origin) -> None:
    clone.run(TINY, {1: 1})
    with pytest.raises(FindingsError) as refused:
        clone.release(TINY)
    accepted = accept_all(clone.table_store, refused.value)

    made = clone.release(TINY)

    assert list(made.accepted) == accepted
    assert read_acceptances(clone.root, "tiny") == {"tiny/1": [], "tiny/2": accepted}
    assert read_acceptances(origin.clone("other").root, "tiny")["tiny/2"] == accepted
    assert not record_file(clone.root, "tiny").exists()


def test_an_acceptance_does_not_outlive_its_release(clone: Clone) -> None:
    clone.run(TINY, {1: 1})
    with pytest.raises(FindingsError) as refused:
        clone.release(TINY)
    accept_all(clone.table_store, refused.value)
    clone.release(TINY)
    clone.run(TINY, MANY)
    clone.release(TINY)
    clone.run(TINY, {1: 1})

    with pytest.raises(FindingsError):
        clone.release(TINY)


def test_a_run_keeps_what_was_accepted_on_another_machine(origin: Origin) -> None:
    here, there = (RunOfClone(origin.clone(name), TINY, "nightly") for name in ("here", "there"))
    here.ingest(days(*range(1, 11)))
    here.compute("validate", "transform")
    here.release()
    task = here.open()
    raw = task.table_store.manifest("raw/tiny/sales")
    task.table_store.checkout(raw.with_partitions({"2026-01-01": raw.partitions["2026-01-01"]}))
    save_task(task)
    here.compute("validate", "transform")
    with pytest.raises(FindingsError) as refused:
        here.release()

    accepted = accept_all(there.open().table_store, refused.value)

    assert list(here.release().accepted) == accepted
    assert origin.git("for-each-ref", "refs/headrace") == ""


def test_code_that_drops_rows_is_a_finding_of_the_table_that_it_computes(clone: Clone) -> None:
    features = clone.table_store.manifest("features/tiny/totals")
    few = {name: structs.replace(entry, rows=0, md5="0" * 32) for name, entry in features.partitions.items()}

    findings = guard(clone.table_store, replace(features, partitions=few))

    assert [each.partition("@")[0] for each in findings] == ["vanished:features/tiny/totals"]


def test_a_feature_row_of_the_future_is_found(clone: Clone) -> None:
    features = clone.table_store.manifest("features/tiny/totals")
    entry = features.partitions["2026-01-03"]
    span = {**entry.metadata[SPAN], "known": 32_472_144_000_000_000}
    late = structs.replace(entry, md5="0" * 32, metadata={SPAN: span})

    findings = guard(clone.table_store, features.plus({"2026-01-03": late}))

    assert [each.partition("@")[0] for each in findings] == ["future:features/tiny/totals/2026-01-03"]


class OtherFeatures(TableStore):
    """Tables of which the feature table is another one."""

    features: ClassVar[Manifest]

    def manifest(self, table: str) -> Manifest:
        return self.features if table == self.features.table else super().manifest(table)


def guard(table_store: TableStore, features: Manifest) -> list[str]:
    """Ids of what the guards of a release find if the feature table is this one."""
    OtherFeatures.features = features
    other, released = OtherFeatures(table_store.root, table_store.cache), recorded_outs(table_store.root, "tiny/1")
    with pytest.raises(FindingsError) as refused:
        check_guards(TINY, other, "tiny/1", released, table_changes("tiny", other, released))
    return [each.id for each in refused.value.findings]


def test_status_and_releases_show_findings_and_acceptances(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(clone.root))
    mark_as_project(clone.root)
    clone.run(TINY, {1: 1})
    with pytest.raises(FindingsError) as refused:
        clone.release(TINY)
    (finding,) = refused.value.findings

    status("tiny", as_json=True)
    assert [each["id"] for each in json.loads(capsys.readouterr().out)["findings"]] == [finding.id]
    accept("tiny", [finding.id], reason="archived", by="ann", run=None, as_json=True)
    assert json.loads(capsys.readouterr().out)["accepted"][0]["is_new"]
    accept("tiny", [finding.id], reason="again", by="bob", run=None, as_json=True)
    again = json.loads(capsys.readouterr().out)["accepted"][0]
    assert (again["by"], again["is_new"]) == ("ann", False)
    clone.release(TINY)
    status("tiny", as_json=False)
    assert f"tiny/2: {finding.id} accepted by ann on 20" in capsys.readouterr().out


@pytest.mark.parametrize("reason", ["", " ", "\n"])
def test_an_acceptance_needs_a_reason(reason: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a reason"):
        accept("tiny", ["vanished:raw/tiny/sales@000000000000"], reason=reason, by=None, run=None)


def test_a_release_without_a_released_feature_is_refused_until_somebody_accepts_it(clone: Clone) -> None:
    table = replace(TINY.features[0], features={"total": pl.Int64()}, transform=renamed_total)
    changed = replace(TINY, features=(table,), service="tiny_v1")
    clone.run(changed, dict.fromkeys(range(1, 11), 2))

    with pytest.raises(FindingsError) as refused:
        clone.release(changed)

    [finding] = refused.value.findings
    assert (finding.check, finding.table) == ("columns", "features/tiny/totals")
    assert "since tiny/1, amount (Int64) is gone; the view totals of the service tiny_v1 has it" in finding.text
    accept_all(clone.table_store, refused.value)
    assert clone.release(changed).name == "tiny/2"


def renamed_total(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    """The sums under another name."""
    return minimal_dataset.totals(day, sales).rename({"amount": "total"})


def test_a_release_with_another_feature_or_a_wider_one_is_made(clone: Clone) -> None:
    features = {"amount": pl.Int64(), "count": pl.Int32()}
    changed = replace(TINY, features=(replace(TINY.features[0], features=features, transform=with_count),))
    clone.run(changed, dict.fromkeys(range(1, 11), 2))

    assert clone.release(changed).name == "tiny/2"


def with_count(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    """The sums, and a number."""
    return minimal_dataset.totals(day, sales).with_columns(count=pl.lit(1, pl.Int32))
