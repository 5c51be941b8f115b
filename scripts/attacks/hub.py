"""A Hugging Face Hub of one process, for the campaign and for tests: the few endpoints that a push and a pull ask for,
over plain HTTP.

Files are held in memory by repository. What is asked is written down, so that tests can say what may not be.
"""

import base64
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest import MonkeyPatch

TOKEN, REPOSITORY_NAME = "hf_of_the_test", "heldout/chaos"


@dataclass
class Repository:
    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        content = "".join(f"{name}{hashlib.sha256(data).hexdigest()}" for name, data in sorted(self.files.items()))
        return hashlib.sha1(content.encode()).hexdigest()


@dataclass
class Hub:
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    changed_on_the_way: str = ""  # a file that is served with one bit flipped


@contextmanager
def hub_for_commands() -> Iterator[Hub]:
    """The same for processes that are started meanwhile."""
    named = {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    before = {name: os.environ.get(name) for name in ("HF_ENDPOINT", *named)}
    with running_hub() as hub:
        os.environ |= {"HF_ENDPOINT": hub.url, **named}
        try:
            yield hub
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                os.environ |= {} if value is None else {name: value}


@contextmanager
def hub_server(monkeypatch: "MonkeyPatch") -> Iterator[Hub]:
    """A hub with nothing in it, at which HF_ENDPOINT points, for a user with a token."""
    import huggingface_hub.constants as constants

    with running_hub() as hub:
        _point_at(hub, constants, monkeypatch)
        yield hub


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _point_at(hub: Hub, constants, monkeypatch: "MonkeyPatch") -> None:
    """This process, which has imported huggingface_hub already."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # Lower versions parse addresses by what HF_ENDPOINT was when they were imported.
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    # Its own storage protocol needs the Hub's servers; files go by Git LFS's instead.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    # As where nothing says otherwise while timm imports it: the commands themselves have to switch it off.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address) -> None:
        """Nothing where a client was killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:  # noqa: N802
        self._answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        body = self._body()
        self.hub.seen.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
        is_user = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.command in ("POST", "PUT") and not is_user and not path.startswith("/lfs/"):
            return self._json({"error": "Unauthorized"}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            is_private = asked.get("visibility") == "private" or asked.get("private") is True
            if name in self.hub.repositories:
                return self._json({"error": "You already created this model repo", "url": name}, 409)
            self.hub.repositories[name] = Repository(is_private)
            return self._json({"url": f"{self.hub.url}/{name}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path.startswith("/lfs/"):
            self.hub.objects[path.rpartition("/")[2]] = body
            return self._json({})
        found = re.fullmatch(r"(?:/api/models)?/([\w.-]+/[\w.-]+?)(?:\.git)?(?:/(.*))?", path)
        repository = found and self.hub.repositories.get(found[1])
        if repository is None or (repository.private and not is_user):
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        return self._of_repository(repository, found[1], found[2] or "revision/main", body)

    def _of_repository(self, repository: Repository, name: str, rest: str, body: bytes) -> None:
        action, _, more = rest.partition("/")
        if action == "preupload":
            return self._json({"files": [_upload_mode(file) for file in json.loads(body)["files"]]})
        if rest == "info/lfs/objects/batch":
            objects = [
                {**asked, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}}
                for asked in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if action == "commit":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    repository.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    repository.files[value["path"]] = self.hub.objects[value["oid"]]
            url = f"{self.hub.url}/{name}/commit/{repository.commit}"
            return self._json({"commitUrl": url, "commitOid": repository.commit, "success": True})
        revision, _, file = more.partition("/")
        if revision not in ("main", repository.commit):
            return self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        if action == "resolve":
            data = repository.files[file]
            if file == self.hub.changed_on_the_way:
                data = data[:-1] + bytes([data[-1] ^ 1])
            etag = hashlib.sha256(repository.files[file]).hexdigest()
            return self._send(data, 200, {"X-Repo-Commit": repository.commit, "ETag": f'"{etag}"'})
        siblings = [{"rfilename": file, "size": len(data)} for file, data in repository.files.items()]
        return self._json({"id": name, "sha": repository.commit, "private": repository.private, "siblings": siblings})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, answer: dict, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(answer).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _upload_mode(file: dict) -> dict:
    mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
