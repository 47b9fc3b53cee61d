"""A hub on this machine: the few endpoints of huggingface.co that huggingface_hub asks, served from a folder by HTTP.

``root/models/OWNER/NAME`` and ``root/datasets/OWNER/NAME`` are repositories at commit :data:`COMMIT`. So the real client runs,
with its real cache, locks, resumption and errors.
"""

from __future__ import annotations

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
    """``gated`` repositories refuse everybody; ``cut`` files break off in the middle; ``served`` lists what was asked for."""

    root: Path
    url: str = ""
    gated: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    served: list[str] = field(default_factory=list)

    def repository(self, kind: str, name: str) -> Path:
        return self.root / kind / name


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self, body: bool) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            api = parts[0] == "api"
            parts = parts[1:] if api else parts
            kind = parts.pop(0) if parts[0] in ("datasets", "models") else "models"
            name, rest = "/".join(parts[:2]), parts[2:]
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
                return self._json({"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}, body)
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
