"""A stand-in of the Hugging Face Hub: what an upload of a data set asks of it, over HTTP, with its faults on demand."""

import base64
import fnmatch
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml

TOKEN = "hf_" + "a" * 34


class StandIn:
    """Data set repositories as folders below ``root``; the address is ``url``."""

    def __init__(self, root: Path):
        self.root, self.private, self.commits = root, {}, []
        self.cut: dict[str, int] = {}
        """How often the connection is cut at a path's last part, e.g. ``{"main": 1}``."""
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, b"")

            def do_POST(self) -> None:
                hub.answer(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        path = urlparse(request.path).path
        self.asked.append(path)
        last = path.rpartition("/")[2]
        if self.cut.get(last, 0):
            self.cut[last] -= 1
            request.close_connection = True
            request.connection.close()
            return
        code, said = self._answer(path, body, request.headers.get("Authorization"))
        text = json.dumps(said).encode()
        request.send_response(code)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(text)))
        if code == 401:
            request.send_header("X-Error-Message", "Invalid username or password.")
        request.end_headers()
        request.wfile.write(text)

    def _answer(self, path: str, body: bytes, token: str | None) -> tuple[int, Any]:
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            code = 409 if name in self.private else 200
            self.private.setdefault(name, asked.get("visibility") == "private" or asked.get("private", False))
            return code, {"url": f"{self.url}/datasets/{name}", "error": "You already created this dataset repo"}
        if path == "/api/validate-yaml":
            head = json.loads(body)["content"].split("---\n")[1]
            valid = isinstance(yaml.safe_load(head), dict)
            return (200, {}) if valid else (400, {"errors": [{"message": "no mapping"}]})
        parts = path.split("/")
        name, what = "/".join(parts[3:5]), parts[5] if len(parts) > 5 else ""
        if name not in self.private:
            return 404, {"error": "Repository not found"}
        folder = self.root / name
        if what == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            return 200, {"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in files]}
        if what == "tree":
            return 200, [{"type": "file", "path": p, "size": 1, "oid": "0"} for p in self.files(name)]
        if what == "commit":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    target = folder / value["path"]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(base64.b64decode(value["content"]))
                elif line["key"] == "deletedFile":
                    (folder / value["path"]).unlink()
            self.commits.append(name)
            return 200, {"commitUrl": f"{self.url}/datasets/{name}/commit/0", "commitOid": "0" * 40}
        return 200, {"id": name, "private": self.private[name], "sha": "0" * 40, "siblings": [], "tags": []}

    def files(self, name: str, pattern: str = "*") -> list[str]:
        """The files of a repository."""
        folder = self.root / name
        found = (p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file())
        return [path for path in found if fnmatch.fnmatchcase(path, pattern)]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
