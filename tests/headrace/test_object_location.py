"""The address of objects: what a source reads, under which bucket and keys that is recorded, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.dataset import ObjectSource
from headrace.object_location import InvalidLocationError, parse_location


@pytest.mark.parametrize(
    ("text", "bucket", "prefix", "object_key"),
    [
        ("s3://raw/orders/", "raw", "orders/", ""),
        ("s3://raw/orders", "raw", "orders/", "orders"),
        ("s3://raw/a/b.csv", "raw", "a/b.csv/", "a/b.csv"),
        ("s3://raw", "raw", "", ""),
        ("s3://raw/", "raw", "", ""),
        ("orders/", "", "orders/", ""),
        ("gs://raw/orders/", "gs://raw", "orders/", ""),
        ("az://raw/orders", "az://raw", "orders/", "orders"),
        ("file:data/orders/", "file:data", "orders/", ""),
        ("file:./data/orders", "file:data", "orders/", "orders"),
        ("file:orders.csv", "file:.", "orders.csv/", "orders.csv"),
        ("file:.", "file:.", "", ""),
        ("file:///srv/in/orders/", "file:///srv/in", "orders/", ""),
        ("file:///srv", "file:///", "srv/", "srv"),
        ("s3://raw/50%20 off#1 ?\n/", "raw", "50%20 off#1 ?\n/", ""),
    ],
)
def test_an_address_names_a_bucket_and_the_keys_below(text: str, bucket: str, prefix: str, object_key: str) -> None:
    place = parse_location(text)

    assert (place.bucket, place.prefix, place.object_key) == (bucket, prefix, object_key)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://example.org/orders/", "found one that begins with 'https:'"),
        ("S3://raw/orders/", "begins with 'S3:'"),
        ("s3:/raw/orders/", "begins with 's3:'"),
        ("s3:///orders/", "expected the name of a bucket after 's3://', found ''"),
        ("gs://a b/orders/", "found 'a b'"),
        ("/srv/orders/", "write 'file:///srv/orders/'"),
        ("file:../orders/", "without '..'"),
        ("file://srv/orders/", "expected 'file:///'"),
    ],
)
def test_what_is_no_address_is_refused_with_what_was_found(text: str, reason: str) -> None:
    with pytest.raises(InvalidLocationError, match=reason.replace(".", r"\.")):
        parse_location(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:canary@raw/orders/",
        "gs://canary@raw/orders/",
        "s3://raw/orders/?X-Amz-Signature=canary",
        "https://account.blob.core.windows.net/raw?sv=2024&sig=canary",
        "az://raw/orders?sv=2024&SIG=canary",
        "s3://raw/orders?AWSAccessKeyId=canary",
    ],
)
def test_an_address_that_may_hold_credentials_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidLocationError, match="without credentials") as caught:
        parse_location(text)

    assert "canary" not in str(caught.value)


def test_a_pattern_sees_what_follows_the_location_and_of_a_named_object_its_file_name() -> None:
    place = parse_location("s3://raw/in/orders")

    assert place.below("in/orders/2013/01.csv") == "2013/01.csv"
    assert place.below("in/orders") == "orders"


def test_a_prefix_is_recorded_as_before_and_its_pattern_sees_the_whole_key() -> None:
    place = ObjectSource("orders/", r"orders/(?P<partition>.+)\.csv", ".csv", "raw").parsed_location

    assert (place.bucket, place.prefix, place.object_key) == ("raw", "orders/", "")
    assert place.below("orders/a.csv") == "orders/a.csv"


@settings(max_examples=80)
@given(st.text(st.sampled_from("ab/. %#?é\u0301\n"), min_size=1, max_size=12))
def test_every_key_below_a_location_is_put_together_again(path: str) -> None:
    place = parse_location(f"s3://raw/{path.lstrip('/')}")

    assert place.below(f"{place.prefix}x/y") == "x/y"
    assert not place.prefix or place.prefix.endswith("/")
