"""Sites: machines with a git host, a bucket and databases of their own, on which commands run the worked example."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import S3, PostgreSQL
from workspaces import git

from headrace.lineage.history import DatasetRevision
from headrace.storage.s3.bucket import Bucket
from headrace.storage.table_store import TableStore
from infra.demo.data import FlightYear
from infra.demo.seed_sources import SourceSystems

ASK_ONLINE = """
import json, sys
import headrace, polars as pl
rows = pl.read_parquet(sys.argv[1]).to_dicts()
with headrace.open_feature_store() as store:
    service = store.get_feature_service("departure_delay")
    print(json.dumps(store.get_online_features(service, rows, full_feature_names=True).to_dict(), default=str))
"""

IDENTITY = {"NAME": "Test", "EMAIL": "test@localhost"}


@dataclass(frozen=True)
class Site:
    """A machine, a git host, a bucket and databases: what is lost together.

    Attributes:
        home: The machine's folder; the clone is in `project`.
        origin: The repository on the git host.
        remote: The bucket of the DVC remote.
        environment: What every command on the machine has in its environment.
    """

    home: Path
    origin: Path
    remote: Bucket
    environment: Mapping[str, str]

    @property
    def project(self) -> Path:
        """The clone."""
        return self.home / "project"

    def run(self, *command: str | Path, folder: Path | None = None, fails: bool = False) -> str:
        """What a command prints, in the clone."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=folder or self.project,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def shell(self, commands: str, folder: Path, *, fails: bool = False, **variables: object) -> str:
        """Run a block of the page; `variables` are those that the reader sets."""
        words = (f"{name}={value}" for name, value in variables.items())
        return self.run("env", *words, "sh", "-euc", commands, folder=folder, fails=fails)

    def headrace(self, *arguments: str, fails: bool = False) -> str:
        """What `headrace` prints."""
        return self.run("headrace", *arguments, fails=fails)

    def retrieve(self, release: str) -> bytes:
        """The training table of `requests.parquet` at a release."""
        out = self.home / "train.parquet"
        asked = self.home.parent.parent / "requests.parquet"
        self.headrace("retrieve", "flights", "--release", release, "--requests", str(asked), "--out", str(out))
        return out.read_bytes()

    def serve(self) -> Any:  # noqa: ANN401  Feast's response
        """What the online store answers to the last rows of `requests.parquet`."""
        answer = self.run(sys.executable, "-c", ASK_ONLINE, self.home.parent.parent / "entities.parquet")
        return json.loads(answer.splitlines()[-1])

    def tables(self) -> dict[str, bytes]:
        """Path → content of the tables in the clone."""
        files = (path for path in sorted((self.project / "data").rglob("*")) if path.is_file())
        return {path.relative_to(self.project).as_posix(): path.read_bytes() for path in files}

    def table(self, table: str, revision: str) -> dict[str, str]:
        """Partition → md5 of a table at a release, as git and the remote have it."""
        manifest = DatasetRevision(
            TableStore.at(self.project), "flights", revision, git(self.project, "rev-parse", revision)
        )
        return dict(manifest.manifest(table).md5s)


@dataclass(frozen=True)
class FlightSites:
    """Makes empty sites; all of them read the same sources.

    Attributes:
        folder: The folder of the sites.
        s3: The server of every bucket.
        postgres: The server of every database.
        settings: What the environment of every site has.
        sources: The systems that the flights come from.
        versioned: Whether buckets keep versions.
    """

    folder: Path
    s3: S3
    postgres: PostgreSQL
    settings: Mapping[str, str]
    sources: SourceSystems
    versioned: bool = False

    @classmethod
    def create(cls, folder: Path, s3: S3, postgres: PostgreSQL, *, versioned: bool = False) -> "FlightSites":
        """Sites in a folder, with sources that have no day yet."""
        who = {f"GIT_{role}_{name}": value for role in ("AUTHOR", "COMMITTER") for name, value in IDENTITY.items()}
        settings = {
            **s3.variables,
            **who,
            "AWS_DEFAULT_REGION": "us-east-1",
            "DVC_NO_ANALYTICS": "1",
            "FEAST_USAGE": "False",
            "HEADRACE_BUCKET": s3.new_bucket(versioned=versioned).name,
            "HEADRACE_DATABASE_URL": postgres.address(postgres.new_database()),
            "HEADRACE_PSEUDONYM_KEY": "a key that is kept elsewhere",
        }
        sources = SourceSystems.connect(settings, FlightYear.installed())
        sources.create()
        return cls(folder, s3, postgres, settings, sources, versioned)

    def new(self, name: str) -> Site:
        """An empty machine, an empty repository, an empty bucket, and empty databases."""
        home, origin = self.folder / name / "home", self.folder / name / "origin.git"
        home.mkdir(parents=True)
        git(self.folder, "init", "--quiet", "--bare", "--initial-branch", "main", str(origin))
        rclone = {"TYPE": "s3", "PROVIDER": "Other", "ENV_AUTH": "true", "ENDPOINT": self.s3.endpoint}
        environment = {
            **self.settings,
            **{f"RCLONE_CONFIG_S3_{name}": value for name, value in rclone.items()},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "FEAST_ONLINE_STORE_PATH": str(home / "online.db"),
            "FEAST_REGISTRY_URL": self.postgres.address(self.postgres.new_database()),
        }
        return Site(home, origin, self.s3.new_bucket(versioned=self.versioned), environment)
