"""Messages show the address of an object store, and nothing that may be a credential."""

from collections.abc import Callable

import pytest

from headrace.errors import NotConfiguredError
from headrace.storage.s3.bucket import Bucket


@pytest.mark.parametrize(
    "endpoint",
    ["AKIA:swordfish", "swordfish@127.0.0.1:9000", "s3://key:swordfish@host", "swordfish", "http://[swordfish"],
)
@pytest.mark.parametrize(
    "call",
    [lambda bucket: list(bucket.list("a")), lambda bucket: bucket.head("a"), lambda bucket: bucket.write("a", b"")],
    ids=["list", "head", "write"],
)
def test_an_endpoint_that_is_no_address_is_not_shown(endpoint: str, call: Callable[[Bucket], object]) -> None:
    bucket = Bucket("lake", endpoint=endpoint, retry_timeout_s=0.1)

    with pytest.raises(NotConfiguredError, match="expected an address such as http") as error:
        call(bucket)
    assert "swordfish" not in str(error.value)
