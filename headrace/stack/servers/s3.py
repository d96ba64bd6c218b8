"""S3: `rclone serve s3` on a folder; real signatures, real files, no versioning."""

from headrace.stack import environment, probes
from headrace.stack.paths import ADDRESS, Site
from headrace.stack.server import Page, Runner, Server, System

BUCKET = "headrace"
REGION = "us-east-1"


def system(site: Site) -> System:
    """One server; a bucket is a folder below its root."""
    root = site.folder("s3")

    async def prepare(_run: Runner) -> None:
        (root / BUCKET).mkdir(parents=True, exist_ok=True)

    async def healthy(_started: float) -> bool:
        return await probes.answers(site.url("s3"))

    pair = f"{site.secrets.s3_key},{site.secrets.s3_secret}"
    address = f"{ADDRESS}:{site.ports['s3']}"
    server = Server(
        name="s3",
        command=(
            str(environment.binaries() / "rclone"), "serve", "s3", str(root), "--addr", address,
            "--config", "/dev/null",
        ),
        healthy=healthy,
        prepare=prepare,
        env=environment.plain() | {"RCLONE_AUTH_KEY": f'"{pair}"'},  # in quotes, for the option is a list
        limit_s=30,
    )  # fmt: skip
    page = Page("S3", site.url("s3"), site.secrets.s3_key, site.secrets.s3_secret)
    return System("s3", (server,), exports(site), (page,))


def exports(site: Site) -> dict[str, str]:
    """Address and keys. rclone answers no checksum that it was not asked for, hence `when_required`."""
    return {
        "HEADRACE_BUCKET": BUCKET,
        "AWS_ENDPOINT_URL": site.url("s3"),
        "AWS_ACCESS_KEY_ID": site.secrets.s3_key,
        "AWS_SECRET_ACCESS_KEY": site.secrets.s3_secret,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
