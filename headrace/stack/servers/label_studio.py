"""Label Studio: closed sign-up, analytics off, no outgoing calls; in an environment of its own."""

import os
import shutil
import sys
from pathlib import Path

from headrace.stack import environment, probes
from headrace.stack.errors import StackError
from headrace.stack.paths import ADDRESS, Site
from headrace.stack.server import Page, Runner, Server, System

USER = "admin@localhost"
QUIET = {
    "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
    "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
    "LABEL_STUDIO_SENTRY_DSN": "",
    "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
}
"""No call leaves the machine."""


def system(site: Site) -> System:
    """One server on SQLite, its data copied from the template that `make install` made."""
    name = "label-studio"

    async def prepare(_run: Runner) -> None:
        copy_template(installed(site), site.folder(name))

    async def healthy(_started: float) -> bool:
        return await probes.is_ok(f"{site.url(name)}/health")

    server = Server(
        name=name,
        command=(
            str(site.home.label_studio / "bin" / "label-studio"), "start", "--no-browser",
            "--internal-host", ADDRESS, "--port", str(site.ports[name]),
        ),
        healthy=healthy,
        prepare=prepare,
        env=settings(site),
        cwd=site.home.stack,
        limit_s=300,
        grace_s=3,
    )  # fmt: skip
    page = Page("Label Studio", site.url(name), USER, site.secrets.label_studio)
    exports = {
        "LABEL_STUDIO_URL": site.url(name),
        "LABEL_STUDIO_API_KEY": site.secrets.label_studio_token,
        "HEADRACE_PSEUDONYM_KEY": site.secrets.pseudonym_key,
    }
    return System(name, (server,), exports, (page,))


def settings(site: Site) -> dict[str, str]:
    """Nothing of the shell's: Label Studio reads bare names such as HOST, PORT, USERNAME and DEBUG too."""
    virtual = {"VIRTUAL_ENV": str(site.home.label_studio)}
    return environment.plain() | virtual | QUIET | {
        "LABEL_STUDIO_BASE_DATA_DIR": str(site.folder("label-studio")),
        "LABEL_STUDIO_HOST": site.url("label-studio"),
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",  # else it may call nothing on this machine: the bucket, a hook
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",  # read when the organization is made, at the first start
        "LABEL_STUDIO_USERNAME": USER,
        "LABEL_STUDIO_PASSWORD": site.secrets.label_studio,
        "LABEL_STUDIO_USER_TOKEN": site.secrets.label_studio_token,
        "fflag_feat_utc_210_prediction_validation_15082025": "true",  # else a bad prediction is taken in silence
    }  # fmt: skip


def installed(site: Site) -> Path:
    """The template of an installed Label Studio."""
    program = site.home.label_studio / "bin" / "label-studio"
    if not program.exists():
        raise StackError(f"Label Studio is not installed: expected {program}.\nNext: `make install`.")
    return site.home.label_studio / "template"


def copy_template(template: Path, data: Path) -> None:
    """Start from migrated tables (12 s of CPU less); the key that signs sessions is not copied but made anew.

    Without a template the server migrates by itself at its first start, which takes a minute.
    """
    if data.exists() or not template.exists():
        return
    draft = data.with_name(f"{data.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(template, draft, ignore=shutil.ignore_patterns(".env"))
    draft.replace(data)


def make_template(environment_root: Path) -> None:
    """Migrate an empty database once, at install time."""
    template = environment_root / "template"
    draft = environment_root / "template.new"
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(template, ignore_errors=True)
    env = environment.plain() | QUIET | {"LABEL_STUDIO_BASE_DATA_DIR": str(draft)}
    program = str(environment_root / "bin" / "label-studio")
    if os.spawnve(os.P_WAIT, program, [program, "init", "-q"], env) != 0:  # noqa: S606 -- no shell wanted
        raise StackError("Label Studio could not make its tables; its message stands above.\nNext: `make install`.")
    draft.replace(template)


if __name__ == "__main__":
    make_template(Path(sys.argv[1]))
