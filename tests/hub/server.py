"""A fake model hub on loopback, with the HTTP interface that huggingface_hub downloads from.

with HubServer({"owner/name": Repository(files={"config.json": b"{}"})}) as hub:
    os.environ["HF_ENDPOINT"] = hub.endpoint
    ...
    assert hub.downloaded == ["owner/name/config.json"]
"""

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?")
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """One model repository: its files by name, and who may read them."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    token: str | None = None
    """Private: only requests with this token are answered."""
    tags: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Other revisions, by name."""

    def at(self, revision: str) -> dict[str, bytes] | None:
        """The files at a branch, tag or commit."""
        named = {"main": self.files, **self.tags}
        return named.get(revision, {commit(files): files for files in named.values()}.get(revision))


def commit(files: Mapping[str, bytes]) -> str:
    """A commit hash, computed from the files."""
    digest = hashlib.sha1()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name] + b"\0")
    return digest.hexdigest()


class HubServer:
    """Serves repositories on loopback and records the requests."""

    def __init__(self, repositories: Mapping[str, Repository]):
        self.repositories = dict(repositories)
        self.requests: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def downloaded(self) -> list[str]:
        """`owner/name/file` of each file whose contents were sent, in alphabetical order."""
        matches = [RESOLVE.fullmatch(path) for method, path in self.requests if method == "GET"]
        return sorted(f"{m.group(1)}/{m.group(3)}" for m in matches if m)

    def __enter__(self) -> "HubServer":
        serve = threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True)
        serve.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *args: object) -> None:
            """Print nothing."""

        def _answer(self, with_body: bool) -> None:
            path = unquote(self.path.split("?")[0])
            hub.requests.append((self.command, path))
            status, headers, body = _respond(hub, path, self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    return Handler


def _respond(hub: HubServer, path: str, auth: str | None) -> tuple[int, dict[str, str], bytes]:
    listing, file = API.fullmatch(path), RESOLVE.fullmatch(path)
    match = listing or file
    if match is None:
        return _refuse(404, "NotFound")
    repository = hub.repositories.get(match.group(1))
    if repository is None or (repository.token and auth != f"Bearer {repository.token}"):
        return _refuse(401, "RepoNotFound")
    files = repository.at(match.group(2) or "main")
    if files is None:
        return _refuse(404, "RevisionNotFound")
    if listing:
        info = {"id": match.group(1), "sha": commit(files), "tags": []}
        info["siblings"] = [{"rfilename": name} for name in sorted(files)]
        return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
    if repository.gated:
        return _refuse(403, "GatedRepo")
    body = files.get(file.group(3)) if file else None
    if body is None:
        return _refuse(404, "EntryNotFound")
    headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": commit(files)}
    return 200, headers, body


def _refuse(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"X-Error-Code": code, "X-Error-Message": code}, b""
