"""A local server that implements the part of the hub's protocol that downloads need."""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
INFO = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)/(?P<what>revision|tree)/[^/?]+(\?.*)?")
FILE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/[^/]+/(?P<name>.+)")


@dataclass
class Repository:
    """A model on the server, and faults that the server simulates for it.

    Attributes:
        id: "organisation/name".
        token: without it the server answers 401.
        refusal: status and X-Error-Code of every answer.
        cut_after: bytes of a file after which the connection is dropped, the first time only.
        held_after: bytes of a file after which the server sends nothing more until ``release``.
        damaged: other content that the server sends for a file.
        described: what the interface says about a GGUF model.
        answer: what the interface answers instead of a listing.
        claimed_sizes: what the listing says instead of the true size.
        moved_to: address of a file elsewhere, with {path} in it, to which requests are redirected.
    """

    id: str
    files: dict[str, bytes]
    token: str | None = None
    refusal: tuple[int, str] | None = None
    cut_after: dict[str, int] = field(default_factory=dict)
    held_after: dict[str, int] = field(default_factory=dict)
    release: threading.Event = field(default_factory=threading.Event)
    damaged: dict[str, bytes] = field(default_factory=dict)
    claimed_sizes: dict[str, int] = field(default_factory=dict)
    moved_to: str | None = None
    described: Any = None
    answer: Any = None


@dataclass(frozen=True)
class Seen:
    """A request that the server answered."""

    method: str
    path: str
    headers: dict[str, str]


class HubServer(ThreadingHTTPServer):
    """Serves ``repositories`` and records every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Seen] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def fetched(self) -> list[str]:
        """Sorted names of the files whose content was requested."""
        matches = [FILE.fullmatch(seen.path) for seen in self.requests if seen.method == "GET"]
        return sorted(match["name"] for match in matches if match)

    def stop(self) -> None:
        """Stop the server."""
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Ignore disconnected clients."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *_: object) -> None:
        """Write nothing to stderr."""

    def answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Seen(self.command, self.path, headers))
        match = INFO.fullmatch(self.path) or FILE.fullmatch(self.path)
        repository = self.server.repositories.get(match["id"]) if match else None
        if match is None or repository is None:
            self.send(404, {"X-Error-Code": "RepoNotFound"})
        elif repository.refusal is not None:
            status, code = repository.refusal
            self.send(status, {"X-Error-Code": code})
        elif repository.token and headers.get("authorization") != f"Bearer {repository.token}":
            self.send(401, {"X-Error-Code": "RepoNotFound"})
        elif "name" in match.groupdict():
            self.send_file(repository, match["name"])
        else:
            usual = listing(repository, match["what"])
            self.send_json(usual if repository.answer is None else repository.answer)

    def send_file(self, repository: Repository, name: str) -> None:
        content = repository.files.get(name)
        if content is None:
            self.send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        etag = identity(name, content)
        content = repository.damaged.get(name, content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if repository.moved_to:
            headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
            self.send(302, {**headers, "Location": repository.moved_to.format(path=self.path)})
            return
        start, status = 0, 200
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(asked[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        get = self.command == "GET"
        cut = repository.cut_after.pop(name, None) if get else None
        held = repository.held_after.pop(name, None) if get else None
        hold = None if held is None else (held, repository.release)
        self.send(status, headers, content[start:], cut, hold)

    def send_json(self, value: Any) -> None:
        self.send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def send(
        self,
        status: int,
        headers: dict[str, str],
        body: bytes = b"",
        cut: int | None = None,
        hold: tuple[int, threading.Event] | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            start = 0
            if hold is not None:
                start, release = hold
                self.wfile.write(body[:start])
                release.wait(60)
            self.wfile.write(body[start:cut])
        if cut is not None:
            self.close_connection = True


def listing(repository: Repository, what: str) -> Any:
    """The API's response for a revision or its tree."""
    if what == "revision":
        sizes = {name: len(content) for name, content in repository.files.items()}
        sizes |= repository.claimed_sizes
        siblings = [
            {"rfilename": name, "size": size, **stored(name, repository.files[name], "sha256")}
            for name, size in sizes.items()
        ]
        about = {"id": repository.id, "modelId": repository.id, "sha": COMMIT}
        return about | {"siblings": siblings, "gguf": repository.described}
    return [
        {"type": "file", "path": name, "size": len(content), **stored(name, content, "oid")}
        for name, content in repository.files.items()
    ]


def is_large(name: str) -> bool:
    """Whether a file is in large file storage."""
    return name.endswith((".safetensors", ".gguf"))


def identity(name: str, content: bytes) -> str:
    """What identifies the content of a file, and is its ETag."""
    if is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def stored(name: str, content: bytes, key: str) -> dict[str, Any]:
    """How a listing describes the content of a file; ``key`` is that of a SHA-256."""
    oid = {"oid": identity("", content), "blobId": identity("", content)}
    if not is_large(name):
        return oid
    lfs = {key: identity(name, content), "size": len(content), "pointerSize": 130}
    return {**oid, "lfs": lfs}
