"""Opens the bucket of a named connection, whose endpoint and credentials are in the environment."""

from pydantic import SecretStr

from headrace.errors import NotConfiguredError
from headrace.object_location import AZURE, GOOGLE
from headrace.settings import Connection, load_connection
from headrace.storage.cloud_bucket import CloudBucket
from headrace.storage.s3.bucket import Bucket

AWS_REGION = "us-east-1"


def open_connection(bucket: str, name: str) -> Bucket | CloudBucket:
    """The bucket or container that a connection leads to.

    Args:
        bucket: As `ObjectLocation`.
        name: Of the connection; empty for what the cloud's own environment variables say.

    Raises:
        NotConfiguredError: The connection has no variables, or such that cannot be used.
    """
    connection = load_connection(name) if name else Connection.model_construct()
    if bucket.startswith((GOOGLE, AZURE)):
        return CloudBucket(bucket, connection)
    region = connection.region or _profile_region(connection, name)
    return Bucket(
        bucket,
        # Without an endpoint it is AWS, whatever AWS_ENDPOINT_URL says: that is the place of the project's own bucket.
        endpoint=connection.endpoint or f"https://s3.{region}.amazonaws.com",
        access_key=_text(connection.access_key),
        secret_key=_text(connection.secret_key),
        session_token=_text(connection.session_token),
        profile=connection.profile,
        region=region,
        variables=connection.prefix,
    )


def _profile_region(connection: Connection, name: str) -> str:
    """The region of the connection's profile.

    Raises:
        NotConfiguredError: There is no such profile.
    """
    if not connection.profile:
        return AWS_REGION
    import botocore.session  # noqa: PLC0415  slow to import
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        found = botocore.session.Session(profile=connection.profile).get_scoped_config().get("region")
    except BotoCoreError as error:
        raise NotConfiguredError(
            f"connection {name!r}: {error}. Correct {connection.prefix}PROFILE, or add the profile to AWS's"
            " configuration (~/.aws/config, or the file that AWS_CONFIG_FILE names)."
        ) from None
    return str(found or AWS_REGION)


def _text(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
