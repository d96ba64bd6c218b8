"""What a variable of the environment cannot hold is one message, without its value and without a stack trace."""

import pytest

from headrace.errors import NotConfiguredError
from headrace.feast.publish_log import PublishLog
from headrace.settings import load_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEADRACE_RUN_DAYS", "canary"),
        ("HEADRACE_THREADS", "0"),
        ("HEADRACE_ENGINE", "canary"),
        ("HEADRACE_GIT_TIMEOUT_S", "-1"),
        ("HEADRACE_COMMIT", "canary"),
        ("HEADRACE_PUSH_RUNS", "canary"),
        ("HEADRACE_RUN_REFS", "canary"),
    ],
)
def test_a_variable_with_a_value_that_it_cannot_have_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(NotConfiguredError, match=rf"^{name}: .*in the environment or in \.env") as refused:
        load_settings()

    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["canary", "canary://host/feast", "postgresql+canary://host/feast", "postgresql://u:canary@host:x/feast"]
)
def test_an_address_of_the_registry_that_cannot_be_used_is_named_without_its_text(address: str) -> None:
    with pytest.raises(NotConfiguredError, match=r"^FEAST_REGISTRY_URL is not an SQLAlchemy address") as refused:
        PublishLog.at(address, "flights")

    assert "canary" not in str(refused.value)
