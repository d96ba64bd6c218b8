"""S3: `rclone serve s3` on a folder; signatures are checked, objects are files, there are no versions; and a page."""

from headrace.stack import environment, probes
from headrace.stack.config import HOST, StackConfig
from headrace.stack.server import CommandRunner, Endpoint, Server, System

BUCKET = "headrace"
REGION = "us-east-1"
BROWSER, BROWSER_USER = "s3-browser", "reader"


def s3_system(config: StackConfig) -> System:
    """One server; a bucket is a folder below its root."""
    root = config.folder("s3")

    async def prepare(_run: CommandRunner) -> None:
        (root / BUCKET).mkdir(parents=True, exist_ok=True)

    async def is_healthy(_started_at: float) -> bool:
        return await probes.responds(config.url("s3"))

    key_pair = f"{config.credentials.s3_key},{config.credentials.s3_secret}"
    server = Server(
        name="s3",
        command=(
            environment.find_program("rclone"), "serve", "s3", str(root), "--addr", f"{HOST}:{config.ports['s3']}",
            "--config", "/dev/null",
        ),
        probe=is_healthy,
        prepare=prepare,
        env=environment.base_environment() | {"RCLONE_AUTH_KEY": f'"{key_pair}"'},  # quoted: the option is a CSV list
        start_timeout_s=30,
    )  # fmt: skip
    endpoint = Endpoint("S3", config.url("s3"), config.credentials.s3_key, config.credentials.s3_secret)
    return System("s3", (server,), s3_exports(config), (endpoint,))


def browser_system(config: StackConfig) -> System:
    """A page for people that lists the bucket, read-only: S3's own address answers a browser with XML."""

    async def is_healthy(_started_at: float) -> bool:
        return await probes.responds(config.url(BROWSER))

    login = {"RCLONE_USER": BROWSER_USER, "RCLONE_PASS": config.credentials.s3_secret}
    server = Server(
        name=BROWSER,
        command=(
            environment.find_program("rclone"), "serve", "http", str(config.folder("s3")), "--read-only",
            "--addr", f"{HOST}:{config.ports[BROWSER]}", "--config", "/dev/null",
        ),
        probe=is_healthy,
        depends_on=("s3",),
        env=environment.base_environment() | login,
        start_timeout_s=30,
    )  # fmt: skip
    endpoint = Endpoint("S3 browser", config.url(BROWSER), BROWSER_USER, config.credentials.s3_secret)
    return System(BROWSER, (server,), {}, (endpoint,))


def s3_exports(config: StackConfig) -> dict[str, str]:
    """Address and credentials. rclone sends no checksum that was not requested, hence `when_required`."""
    return {
        "HEADRACE_BUCKET": BUCKET,
        "AWS_ENDPOINT_URL": config.url("s3"),
        "AWS_ACCESS_KEY_ID": config.credentials.s3_key,
        "AWS_SECRET_ACCESS_KEY": config.credentials.s3_secret,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
