"""The signature of a task: whatever is edited of what it asks about, it does not fit any more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.label.item_signature import FIELD, ItemSigner, is_signed
from headrace.label.label_studio.tasks import claims_item, sample_id_of, task_data

SIGNER = ItemSigner("[headrace digit 0123456789ab]", "a long random text")
DATA = {"text": "Late.", "sample_id": "ride-1", "item": {"event_time": "2026-01-01T12:00:00+00:00", "car": 1}}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
    max_leaves=5,
)


@given(json_values, json_values, json_values)
def test_any_edit_of_the_sample_id_or_the_item_is_seen(sample_id: object, time: object, car: object) -> None:
    edited = {"sample_id": sample_id, "item": {"event_time": time, "car": car}}

    is_as_sent = not SIGNER.find_problem({**SIGNER.sign(DATA), **edited})

    # Label Studio on PostgreSQL returns 1.0 as 1.
    assert is_as_sent == (edited == {name: DATA[name] for name in edited} and not isinstance(car, bool))


@given(json_values)
def test_any_other_signature_is_refused(signature: object) -> None:
    assert SIGNER.find_problem({**DATA, FIELD: signature}) if signature else not is_signed({**DATA, FIELD: signature})


@given(json_values)
def test_whatever_is_in_the_place_of_a_tasks_data_is_no_item_of_ours(content: object) -> None:
    data = task_data({"id": 1, "data": content})
    signed = SIGNER.sign(data)

    assert SIGNER.find_problem(signed) == ""
    assert isinstance(sample_id_of(data), str)
    assert claims_item(data) in (True, False)


def test_what_people_are_shown_may_change_and_the_order_of_fields_too() -> None:
    signed = {**SIGNER.sign(DATA), "text": "Later.", "selection_reason": "drawn at random"}

    assert SIGNER.find_problem(dict(reversed(signed.items()))) == ""


def test_numbers_may_come_back_as_postgresql_stores_them() -> None:
    sent = SIGNER.sign({"sample_id": "a", "item": {"price": 1e16, "share": 0.1, "parts": [2.0]}})

    assert SIGNER.find_problem({**sent, "item": {"price": 10**16, "share": 0.1, "parts": [2]}}) == ""


@pytest.mark.parametrize(
    "other",
    [ItemSigner(SIGNER.project_mark, "another"), ItemSigner("[headrace delay_cause 0]", SIGNER.secret)],
)
def test_a_task_of_another_project_or_signed_with_another_key_is_not_ours(other: ItemSigner) -> None:
    assert "HEADRACE_PSEUDONYM_KEY" in other.find_problem(SIGNER.sign(DATA))


def test_without_a_secret_nothing_is_signed_or_refused() -> None:
    unable = ItemSigner("[headrace digit 0123456789ab]", None)

    assert unable.sign(DATA) == DATA
    assert unable.find_problem(SIGNER.sign(DATA)) == ""
