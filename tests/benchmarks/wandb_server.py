"""A stand-in for the wandb server on this machine: wandb's own client talks to it, and tests read what arrived.

It answers the few calls of the client that the runner's logs need (run, history, files, artefacts), and keeps what they carry. It knows
nothing of accounts: any key will do, unless `refuses` is set.
"""

import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "tester"


@dataclass
class Arrived:
    """One run as the server has it."""

    group: str | None = None
    job_type: str | None = None
    project: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Name -> path in it -> content."""
    begun: int = 0
    """How many processes have said that they write this run."""
    complete: bool = False


class WandbServer:
    """Context in which the server listens.

    Args:
        refuses: HTTP status that every call is answered with, as by a server that is broken (500) or does not know the account (401).
    """

    def __init__(self, refuses: int | None = None) -> None:
        self.runs: dict[str, Arrived] = {}
        self.refuses = refuses
        self._artifacts: list[dict[str, bytes]] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a client comes here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "0123456789" * 4}

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, operation: str, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL call."""
        project = {"id": "project", "name": given.get("project"), "entity": {"id": "entity", "name": ENTITY}}
        with self._lock:
            if operation == "Viewer" or "viewer" in query:
                return {"viewer": {"id": "user", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}
            if operation == "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            if operation == "RunResumeStatus":
                return {"model": None}
            if operation == "UpsertBucket":
                run = self.runs.setdefault(given["name"], Arrived())
                if given.get("groupName"):  # the call that opens the run; later ones change its config
                    run.group, run.job_type, run.project, run.begun = given["groupName"], given["jobType"], given["project"], run.begun + 1
                if given.get("config"):
                    run.config = {name: item["value"] for name, item in json.loads(given["config"]).items()}
                bucket = {"id": given["name"], "name": given["name"], "displayName": given.get("displayName") or "", "description": ""}
                bucket |= {"config": "{}", "sweepName": None, "historyLineCount": 0, "project": project}
                return {"upsertBucket": {"bucket": bucket, "inserted": run.begun == 1}}
            if operation == "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.url}/file/{given['run']}/{name}"} for name in given["files"]]
                return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
            return self.answer_artifact(operation, given)

    def answer_artifact(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of a call about an artefact: opened, its manifest and files are told where to go, closed."""
        if operation == "ArtifactType":
            return {"project": {"artifact": None}}
        if operation == "CreateArtifact":
            run = self.runs[given["input"]["runName"]]
            self._artifacts.append(run.artifacts.setdefault(given["input"]["artifactCollectionName"], {}))
            number = str(len(self._artifacts) - 1)
            sequence = {"id": "sequence", "latestArtifact": None}
            return {"createArtifact": {"artifact": {"id": number, "state": "PENDING", "artifactSequence": sequence}}}
        if operation in {"CreateArtifactManifest", "UpdateArtifactManifest"}:
            number = given["artifactID"] if operation.startswith("Create") else given["artifactManifestID"]
            file = {"uploadUrl": f"{self.url}/artifact/{number}/manifest", "uploadHeaders": []}
            return {operation[0].lower() + operation[1:]: {"artifactManifest": {"id": number, "file": file}}}
        if operation == "CreateArtifactFiles":
            nodes = [
                {"id": item["name"], "name": item["name"], "displayName": item["name"], "uploadHeaders": [], "storagePath": item["name"]}
                | {"uploadUrl": f"{self.url}/artifact/{item['artifactID']}/{item['name']}", "artifact": {"id": item["artifactID"]}}
                for item in given["input"]["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if operation == "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "digest"}}}
        return {}  # what else the client asks for it does without

    def stream(self, key: str, content: dict[str, Any]) -> None:
        """Lines of the files that grow while a run goes on."""
        with self._lock:
            run = self.runs.setdefault(key, Arrived())
            lines = content.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            run.history += [json.loads(line) for line in lines]
            run.complete = run.complete or bool(content.get("complete"))

    def keep(self, place: str, content: bytes) -> None:
        """A file that was uploaded."""
        kind, key, name = place.lstrip("/").split("/", 2)
        with self._lock:
            if kind == "file":
                self.runs[key].files[name] = content
            else:
                self._artifacts[int(key)][name] = content


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that leaves cuts its connections off, which is no error; what matters is what arrived."""


class _Handler(BaseHTTPRequestHandler):
    owner: WandbServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Tests read what arrived, not this."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

    def _reply(self, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(self.owner.refuses or 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self) -> None:
        content = self._body()
        if self.owner.refuses:
            self._reply({"errors": [{"message": "refused"}]})
        elif self.path == "/graphql":
            call = json.loads(content)
            named = re.search(r"(?:query|mutation)\s+(\w+)", call["query"])
            self._reply({"data": self.owner.answer(named[1] if named else "", call["query"], call.get("variables") or {})})
        else:
            if self.path.endswith("/file_stream"):
                self.owner.stream(self.path.split("/")[-2], json.loads(content))
            self._reply({})

    def do_PUT(self) -> None:
        self.owner.keep(self.path, self._body())
        self._reply({})

    def do_GET(self) -> None:
        self._reply({})
