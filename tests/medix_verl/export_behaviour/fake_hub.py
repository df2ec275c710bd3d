"""A hub on the loopback interface: as much of its protocol as an upload needs, kept in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeHub:
    """`files`: what the repository shows. `large`: its storage, by hash. `allowed_uploads`: large files it takes."""

    private: bool | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    allowed_uploads: int = 10_000
    echo_token: bool = False

    def __post_init__(self) -> None:
        hub = self

        class Handler(FakeHandler):
            owner = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class FakeHandler(BaseHTTPRequestHandler):
    """Answers for `owner`."""

    owner: FakeHub

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not body and self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self._reply({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                 "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]  # fmt: skip
            return self._reply({"files": modes})
        if self.path.endswith("/info/lfs/objects/batch"):
            return self._reply({"transfer": "basic", "objects": [self._object(o) for o in json.loads(body)["objects"]]})
        if "/commit/" in self.path:
            return self._commit([json.loads(line) for line in body.decode().splitlines() if line])
        self._reply({"error": f"no such address {self.path}"}, 404)

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            return self._reply([self._entry(name) for name in sorted(self.owner.files)])
        self._note_token()
        self._reply({"id": "someone/model", "private": self.owner.private, "sha": "0" * 40, "siblings": []})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if len(self.owner.uploads) >= self.owner.allowed_uploads:
            found = self.headers.get("Authorization", "") if self.owner.echo_token else ""
            return self._reply({"error": f"the disk is full {found} {' '.join(self.owner.tokens)}"}, 403)
        self.owner.large[hashlib.sha256(data).hexdigest()] = data
        self.owner.uploads.append(self.path)
        self._reply({})

    def _create(self, wanted: dict[str, Any]) -> None:
        self._note_token()
        url = {"url": f"{self.owner.url}/someone/model", "id": "someone/model", "name": "someone/model"}
        if self.owner.private is not None:
            return self._reply(url | {"error": "You already created this model repo"}, 409)
        self.owner.private = bool(wanted.get("private") or wanted.get("visibility") == "private")
        self._reply(url)

    def _object(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["oid"] in self.owner.large:
            return item
        return item | {"actions": {"upload": {"href": f"{self.owner.url}/put/{item['oid']}", "header": {}}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        names = []
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.owner.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.owner.files[value["path"]] = self.owner.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del self.owner.files[value["path"]]
            else:
                continue
            names.append(value["path"])
        self.owner.commits.append(names)
        self._reply(
            {"commitUrl": f"{self.owner.url}/someone/model/commit/{'1' * 40}", "commitOid": "1" * 40, "success": True}
        )

    def _entry(self, name: str) -> dict[str, Any]:
        data = self.owner.files[name]
        entry = {"type": "file", "path": name, "size": len(data), "oid": blob_id(data)}
        if name.endswith(".safetensors"):
            digest = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
        return entry

    def _note_token(self) -> None:
        self.owner.tokens.add(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().strip(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reply(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def blob_id(data: bytes) -> str:
    """git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
