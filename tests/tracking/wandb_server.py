"""A stand-in for W&B's server: it keeps what clients send and answers what they need, so that online runs can be tested here.

The client is the real library with its real service. It speaks GraphQL (a run is a "bucket"), streams history and summary as
lines of files, and uploads files to the addresses that it is told.
"""

import contextlib
import gzip
import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = {"id": "e", "name": "tester"}
PROJECT = {"id": "p", "internalId": "p", "name": "genaug", "entity": ENTITY}


@dataclass
class StandIn:
    """What the server has been told, by all runs since it started."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By id: what the client said of the run, with ``history`` (rows), ``summary``, ``exit``, ``used`` and ``made``."""
    artefacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By digest."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Uploads by path."""
    operations: list[str] = field(default_factory=list)
    """Names of the GraphQL operations, in order."""
    views: list[dict[str, Any]] = field(default_factory=list)
    """Reports."""
    sweeps: list[dict[str, Any]] = field(default_factory=list)
    """What ``wandb sweep`` has sent."""
    commands: list[dict[str, Any]] = field(default_factory=list)
    """What agents of a sweep are told to do, one after the other."""
    address: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """With which a process talks to this server."""
        patient = {"WANDB_HTTP_TIMEOUT": "300"}  # on a busy machine this process waits for its turn
        return {"WANDB_BASE_URL": self.address, "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online", **patient}

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of one GraphQL operation; what is not listed here gets nothing, which the client takes for an old server."""
        self.operations.append(operation)
        given = {**given, **given.get("input", {})}
        reply = getattr(self, f"on_{operation}", None)
        return {} if reply is None else reply(**given)

    def on_Viewer(self, **_: Any) -> dict[str, Any]:
        user = {"id": "v", "entity": ENTITY["name"], "username": ENTITY["name"]}
        return {"viewer": {**user, "flags": "{}", "teams": {"edges": []}}}

    def on_GetDefaultEntity(self) -> dict[str, Any]:
        return {"viewer": {"id": "v", "entity": ENTITY["name"]}}

    def on_GetProjects(self, **_: Any) -> dict[str, Any]:
        about = {
            "__typename": "Project",
            "entityName": ENTITY["name"],
            "createdAt": "2026",
            "isBenchmark": False,
            "user": None,
        }
        page = {"endCursor": None, "hasNextPage": False}
        return {"models": {"edges": [{"node": {**PROJECT, **about}}], "pageInfo": page}}

    def on_upsertView(self, **given: Any) -> dict[str, Any]:
        self.views.append(given)
        project = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
        view = {**given, "id": f"view{len(self.views)}", "project": project, "updatedAt": "2026-01-01T00:00:00"}
        return {"upsertView": {"view": view, "inserted": True}}

    def on_RunResumeStatus(self, name: str, **_: Any) -> dict[str, Any]:
        run = self.runs.get(name)
        return {"model": {"id": "p", "name": "genaug", "entity": ENTITY, "bucket": run and self.bucket(name)}}

    def on_UpsertBucket(self, name: str, **given: Any) -> dict[str, Any]:
        inserted = name not in self.runs
        run = self.runs.setdefault(name, {"history": [], "summary": {}, "used": [], "made": []})
        run |= {key: value for key, value in given.items() if value is not None}
        return {"upsertBucket": {"bucket": self.bucket(name), "inserted": inserted}}

    def bucket(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        return {
            "id": name,
            "name": name,
            "displayName": run.get("displayName"),
            "description": None,
            "notes": None,
            "config": run.get("config"),
            "tags": run.get("tags"),
            "sweepName": run.get("sweep"),
            "project": PROJECT,
            "historyLineCount": len(run["history"]),
            "historyTail": json.dumps([json.dumps(row) for row in run["history"][-1:]]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "wandbConfig": '{"t": 1}',
            "summaryMetrics": json.dumps(run["summary"]),
        }

    def on_CreateRunFiles(self, run: str, files: list[str], **_: Any) -> dict[str, Any]:
        urls = [{"name": file, "uploadUrl": f"{self.address}/upload/{run}/{file}"} for file in files]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": urls}}

    def on_ArtifactType(self, name: str, **_: Any) -> dict[str, Any]:
        known = {made["artifactCollectionName"]: made["artifactTypeName"] for made in self.artefacts.values()}
        kind = known.get(name.partition(":")[0])
        return {"project": {"artifact": kind and {"artifactType": {"name": kind}}}}

    def on_ArtifactByID(self, id: str, **_: Any) -> dict[str, Any]:
        made = self.artefacts[id]
        return {
            "artifact": {
                "__typename": "Artifact",
                "id": id,
                "artifactSequence": {
                    "__typename": "ArtifactSequence",
                    "name": made["artifactCollectionName"],
                    "project": PROJECT,
                },
                "versionIndex": 0,
                "artifactType": {"name": made["artifactTypeName"]},
                "description": None,
                "metadata": made["metadata"],
                "ttlDurationSeconds": -2,
                "ttlIsInherited": True,
                "tags": [],
                "historyStep": None,
                "state": "COMMITTED",
                "size": 0,
                "digest": id,
                "commitHash": None,
                "fileCount": 1,
                "createdAt": "2026-01-01T00:00:00",
                "updatedAt": None,
                "aliases": [],
            }
        }

    def on_CreateArtifact(self, digest: str, runName: str | None, **given: Any) -> dict[str, Any]:
        known = digest in self.artefacts
        made = self.artefacts.setdefault(digest, given)
        if not known and runName:
            self.runs[runName]["made"].append(made["artifactCollectionName"])
        state = "COMMITTED" if known else "PENDING"
        sequence = {"latestArtifact": {"id": digest} if known else None}
        return {"createArtifact": {"artifact": {"id": digest, "state": state, "artifactSequence": sequence}}}

    def on_CreateArtifactManifest(self, artifactID: str, name: str, **_: Any) -> dict[str, Any]:
        return {"createArtifactManifest": {"artifactManifest": {"id": artifactID, "file": self.file(artifactID, name)}}}

    def file(self, artefact: str, name: str) -> dict[str, Any]:
        url = f"{self.address}/upload/{artefact}/{name}"
        return {"id": name, "name": name, "displayName": name, "uploadUrl": url, "uploadHeaders": []}

    def on_CreateArtifactFiles(self, artifactFiles: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
        nodes = [
            {
                **self.file(file["artifactID"], file["name"]),
                "storagePath": file["name"],
                "artifact": {"id": file["artifactID"]},
            }
            for file in artifactFiles
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def on_CommitArtifact(self, artifactID: str, **_: Any) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": artifactID, "digest": artifactID}}}

    def on_UseArtifact(self, artifactID: str, runName: str, **_: Any) -> dict[str, Any]:
        self.runs[runName]["used"].append(self.artefacts[artifactID]["artifactCollectionName"])
        return {"useArtifact": {"artifact": {"id": artifactID}}}

    def on_UpsertSweep(self, **given: Any) -> dict[str, Any]:
        self.sweeps.append(given)
        return {"upsertSweep": {"sweep": {"name": "sweep1", "project": PROJECT}, "configValidationWarnings": []}}

    def on_CreateAgent(self, **_: Any) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "agent1"}}}

    def on_SweepWithRuns(self, **_: Any) -> dict[str, Any]:
        return {"project": {"sweep": {"config": self.sweeps[-1]["config"], "runs": {"edges": []}}}}

    def on_Heartbeat(self, **_: Any) -> dict[str, Any]:
        commands = [self.commands.pop(0)] if self.commands else []
        if not commands and self.runs and all("exit" in run for run in self.runs.values()):
            commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": "agent1"}, "commands": json.dumps(commands)}}

    def stream(self, run_id: str, sent: dict[str, Any]) -> None:
        """One request of a run's stream."""
        run = self.runs[run_id]
        files = sent.get("files") or {}
        if history := files.get("wandb-history.jsonl"):
            rows = [json.loads(line) for line in history["content"]]
            run["history"][history["offset"] : history["offset"] + len(rows)] = rows
        if summary := files.get("wandb-summary.json"):
            run["summary"] = json.loads(summary["content"][-1])
        if sent.get("complete"):
            run["exit"] = sent.get("exitcode")


@contextlib.contextmanager
def wandb_server() -> Iterator[StandIn]:
    """A stand-in at a free port of this machine."""
    state = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Requests are kept, not printed."""

        def body(self) -> bytes:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            return gzip.decompress(data) if self.headers.get("content-encoding") == "gzip" else data

        def reply(self, answer: Any) -> None:
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.reply({})

        def do_PUT(self) -> None:
            state.files[self.path.removeprefix("/upload/")] = self.body()
            self.reply({})

        def do_POST(self) -> None:
            body = self.body()
            if self.path == "/graphql":
                asked = json.loads(body)
                operation = asked.get("operationName") or re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])[1]
                self.reply({"data": state.answer(operation, asked.get("variables") or {})})
                return
            if stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                state.stream(stream[1], json.loads(body))
            self.reply({})

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # W&B uploads many files at once, and waits seconds after a refusal

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a client that has gone is no error
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
