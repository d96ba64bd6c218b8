"""No message of a known error holds a credential, whatever the form of the address that it quotes."""

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import HeadraceError, TransientError

SIGNS = st.characters(max_codepoint=0x17F, exclude_categories=("C", "Z"), exclude_characters="'\"\\@&;")
SECRETS = st.builds(
    "{}{}{}".format,
    st.text(SIGNS, max_size=8),
    st.from_regex(r"[A-Za-z0-9]{4}", fullmatch=True),
    st.text(SIGNS, min_size=2, max_size=8),
)


def message(text: str) -> str:
    return str(HeadraceError(f"It failed: {text} is not there. Try again."))


@given(SECRETS, st.sampled_from([str, quote, quote_plus]))
def test_passwords_before_the_host_are_hidden(secret: str, encode: "type[str]") -> None:
    for scheme in ("postgresql+psycopg", "https", "s3", "redis", "ssh", "tls"):
        text = message(f"{scheme}://user:{encode(secret)}@host:5432/db")
        assert text == message(f"{scheme}://user:***@host:5432/db")
        assert "***@host:5432/db is not there. Try again." in text


@given(SECRETS)
def test_passwords_in_parameters_are_hidden(secret: str) -> None:
    for name in ("password", "sslpassword", "PGPASSWORD", "token", "X-Amz-Signature", "client_secret", "auth_token"):
        in_url, alone = f"postgresql://host/db?sslmode=require&{name}={{}}&a=b", f"{name}={{}}"
        assert (
            message(in_url.format(quote(secret, safe="")))
            == f"It failed: {in_url.format('***')} is not there. Try again."
        )
        assert message(alone.format(f"'{secret}'")) == f"It failed: {alone.format('***')} is not there. Try again."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ghp_abc123@github.com/a/b.git", "https://***@github.com/a/b.git"),
        ("postgresql://u:p@ss/w@host/db", "postgresql://u:***@host/db"),
        ("redis://:secret@host:6379", "redis://:***@host:6379"),
        ("host=db password=abc user=x", "host=db password=*** user=x"),
    ],
)
def test_what_is_no_secret_stays(text: str, shown: str) -> None:
    assert message(text) == f"It failed: {shown} is not there. Try again."


@pytest.mark.parametrize(
    "text",
    [
        "git@github.com:a/b.git",
        "s3://bucket/key=1/x",
        "postgresql+psycopg://user:password@host:port/database",
        "http://127.0.0.1:8080/projects/3",
        "x of 2013-01-09: expected a == b",
        "file:///srv/samples",
    ],
)
def test_an_address_without_credentials_is_not_changed(text: str) -> None:
    assert message(text) == f"It failed: {text} is not there. Try again."


def test_errors_keep_their_other_arguments() -> None:
    assert TransientError("a", 3).args == ("a", 3)
