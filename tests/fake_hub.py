"""A hub on this machine: the few endpoints of huggingface.co that huggingface_hub asks, served from a folder by HTTP.

``root/models/OWNER/NAME``, ``root/datasets/...`` and ``root/spaces/...`` are repositories at commit :data:`COMMIT`. So the real
client runs, with its real cache, locks, resumption and errors. Uploads go the way of git LFS: tests switch Xet off, whose storage
is a service of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """``gated`` repositories refuse everybody; ``cut`` files break off in the middle; ``served`` lists what was asked for.

    Of uploads: ``public`` repositories, ``received`` large files by digest, ``commits`` as (repository, files), and
    ``refusals``: a status and a sentence for the next requests whose path holds the key.
    """

    root: Path
    url: str = ""
    gated: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    served: list[str] = field(default_factory=list)
    public: set[str] = field(default_factory=set)
    received: dict[str, bytes] = field(default_factory=dict)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)

    def repository(self, kind: str, name: str) -> Path:
        return self.root / kind / name

    def create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """What POST /api/repos/create does: 409 where the repository is there."""
        kind, name = f"{asked.get('type', 'model')}s", f"{asked['organization']}/{asked['name']}"
        folder, address = self.repository(kind, name), f"{self.url}/{'' if kind == 'models' else kind + '/'}{name}"
        if folder.is_dir():
            return 409, {"error": "You already created this repo", "url": address}
        folder.mkdir(parents=True)
        if not (asked.get("private") or asked.get("visibility") == "private"):
            self.public.add(name)
        return 200, {"url": address, "name": name, "id": name}

    def preupload(self, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
        """What is text goes into the commit, all else to the storage of large files; ``oid`` where the file is there."""
        modes = []
        for file in asked["files"]:
            mode = "regular" if Path(file["path"]).suffix in (".md", ".json", ".html", ".csv", "") else "lfs"
            path = folder / file["path"]
            modes.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
            if path.is_file():
                content = path.read_bytes()
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                modes[-1]["oid"] = hashlib.sha256(content).hexdigest() if mode == "lfs" else blob
        return {"files": modes}

    def batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Where large files go; those that are there get no address."""
        objects = []
        for one in asked["objects"]:
            upload = {"upload": {"href": f"{self.url}/storage/{one['oid']}"}} if one["oid"] not in self.received else {}
            objects.append({"oid": one["oid"], "size": one["size"], **({"actions": upload} if upload else {})})
        return {"transfer": "basic", "objects": objects}

    def commit(self, folder: Path, name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        """Write the files of a commit; a large one must have been received."""
        files = [line["value"] for line in lines if line["key"] in ("file", "lfsFile")]
        for file in files:
            path = folder / file["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.received[file["oid"]] if "oid" in file else base64.b64decode(file["content"]))
        self.commits.append((name, [file["path"] for file in files]))
        return {"commitUrl": f"{self.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._refused():
                hub.received[hashlib.sha256(content).hexdigest()] = content
                self._send(200, b"", True, {})

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self._refused():
                return
            if not (self.headers.get("Authorization") or "").startswith("Bearer "):
                return self._refuse(401, "Unauthorized")
            kind, name, rest = self._place()
            folder = hub.repository(kind, name)
            if self.path.startswith("/api/validate-yaml"):
                return self._json({"errors": [], "warnings": []}, True)
            if self.path.startswith("/api/repos/create"):
                status, answer = hub.create(json.loads(content))
                return self._send(status, json.dumps(answer).encode(), True, {"Content-Type": "application/json"})
            if name.endswith(".git") or rest[-1:] == ["batch"]:
                return self._json(hub.batch(json.loads(content)), True)
            if rest[:1] == ["preupload"]:
                return self._json(hub.preupload(folder, json.loads(content)), True)
            return self._json(hub.commit(folder, name, [json.loads(line) for line in content.splitlines()]), True)

        def _refused(self) -> bool:
            """Whether the test wants this request refused."""
            status, said = next((why for word, why in hub.refusals.items() if word in self.path), (0, ""))
            if status:
                self._send(status, json.dumps({"error": said}).encode(), True, {"Content-Type": "application/json"})
            return bool(status)

        def _place(self) -> tuple[str, str, list[str]]:
            """The kind and the name of the repository, and the rest of the path."""
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            parts = parts[1:] if parts[0] == "api" else parts
            kind = parts.pop(0) if parts[0] in ("datasets", "models", "spaces") else "models"
            return kind, "/".join(parts[:2]), parts[2:]

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self, body: bool) -> None:
            api = self.path.startswith("/api/")
            kind, name, rest = self._place()
            folder = hub.repository(kind, name)
            if name in hub.gated:
                return self._refuse(403, "GatedRepo")
            if not folder.is_dir():
                return self._refuse(401, "RepoNotFound")
            if rest[1:2] and rest[1] not in ("main", COMMIT):
                return self._refuse(404, "RevisionNotFound")
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            if api and rest[:1] == ["tree"]:
                return self._json([self._entry(folder, path) for path in files], body)
            if api:
                siblings = [{"rfilename": str(path.relative_to(folder))} for path in files]
                return self._json(
                    {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": name not in hub.public}, body
                )
            return self._file(folder / "/".join(rest[2:]), name, body)

        def _entry(self, folder: Path, path: Path) -> dict[str, Any]:
            oid = hashlib.sha1(path.read_bytes()).hexdigest()
            return {"type": "file", "path": str(path.relative_to(folder)), "size": path.stat().st_size, "oid": oid}

        def _json(self, content: Any, body: bool) -> None:
            self._send(200, json.dumps(content).encode(), body, {"Content-Type": "application/json"})

        def _refuse(self, status: int, code: str) -> None:
            self._send(status, b"{}", True, {"X-Error-Code": code, "X-Error-Message": code})

        def _file(self, path: Path, name: str, body: bool) -> None:
            if not path.is_file():
                return self._refuse(404, "EntryNotFound")
            content = path.read_bytes()
            tag = hashlib.sha1(content).hexdigest()
            begin = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
            if body:
                hub.served.append(f"{name}/{path.name}@{begin}")
            cut = len(content) // 2 if path.name in hub.cut and body else None
            self._send(206 if begin else 200, content[begin:], body, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, cut)

        def _send(self, status: int, content: bytes, body: bool, headers: dict[str, str], cut: int | None = None) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content)), "Connection": "close"}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content[:cut])
            self.close_connection = True

    return Handler


@contextmanager
def serve(root: Path, patch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Run a hub; huggingface_hub asks it, with an empty cache beside ``root`` and no token."""
    hub = FakeHub(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    patch.delenv("HF_HUB_OFFLINE", raising=False)
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(root.parent / "cache"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(root.parent / "no-token"))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
