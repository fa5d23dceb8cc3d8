"""A W&B server of a few answers, and a reader of W&B's own run files: what the tests hold against rounds.jsonl."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

API_KEY = "0123456789" * 4  # of the form that W&B accepts
BLOCK = 32768


class WandbServer(ThreadingHTTPServer):
    """Keeps what it is sent: runs[id] = {config, history, summary, ...}. `gate` closed: no POST is answered."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        self.gate = threading.Event()
        self.gate.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def run_of(self, run_id: str) -> dict[str, Any]:
        empty = {"config": {}, "history": {}, "summary": {}, "complete": False, "exitcode": None, "variables": {}}
        return self.runs.setdefault(run_id, empty)

    def graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "project", "name": variables.get("project"), "entity": {"id": "entity", "name": "me"}}
        if operation == "UpsertBucket":
            run = self.run_of(variables["name"])
            run["variables"] |= {key: value for key, value in variables.items() if value is not None}
            run["config"] |= {k: v["value"] for k, v in json.loads(variables["config"] or "{}").items()}
            bucket = {"id": "bucket", "name": variables["name"], "displayName": variables["displayName"]}
            bucket |= {"description": "", "config": "{}", "sweepName": None, "project": project, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "RunResumeStatus" and variables["name"] in self.runs:
            return {"model": {**project, "bucket": self._resumed(variables["name"])}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/files/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "bucket", "uploadHeaders": [], "files": files}}
        return {}

    def _resumed(self, run_id: str) -> dict[str, Any]:
        run = self.runs[run_id]
        tail = [json.dumps(row) for row in list(run["history"].values())[-1:]]
        return {
            "id": "bucket",
            "name": run_id,
            "summaryMetrics": json.dumps(run["summary"]),
            "displayName": None,
            "logLineCount": 0,
            "historyLineCount": len(run["history"]),
            "eventsLineCount": 0,
            "historyTail": json.dumps(tail),
            "eventsTail": "[]",
            "tags": [],
            "notes": None,
            "wandbConfig": "{}",
            "config": json.dumps({key: {"value": value} for key, value in run["config"].items()}),
        }

    def stream(self, run_id: str, sent: dict[str, Any]) -> None:
        run = self.run_of(run_id)
        history = (sent.get("files") or {}).get("wandb-history.jsonl")
        if history:
            lines = enumerate(map(json.loads, history["content"]), history["offset"])
            run["history"] |= dict(lines)  # by line, as the real one keeps it
        summary = (sent.get("files") or {}).get("wandb-summary.json")
        if summary:
            run["summary"] = json.loads(summary["content"][-1])
        if sent.get("complete"):
            run |= {"complete": True, "exitcode": sent["exitcode"]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self._body()
        self._reply({})

    def do_POST(self) -> None:
        body = self._body()
        if not self.server.gate.is_set():
            self.server.gate.wait(120)
            self.close_connection = True
            return
        answer: dict[str, Any] = {}
        if self.path.endswith("/graphql"):
            sent = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", sent["query"])
            assert operation
            answer = {"data": self.server.graphql(operation[1], sent.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            self.server.stream(self.path.split("/")[-2], json.loads(body))
        self._reply(answer)

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    server = WandbServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.gate.set()
        server.shutdown()
        server.server_close()


def wandb_run(folder: Path) -> dict[str, Any]:
    """Config, history (in order), summary and more of the one W&B run in a run folder, from its own file."""
    (path,) = (folder / "wandb").glob("*run-*/run-*.wandb")
    out: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "artifacts": [], "exit_code": None}
    for record in _records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            out |= {"id": run.run_id, "project": run.project, "group": run.run_group, "name": run.display_name}
            out |= {"tags": list(run.tags), "entity": run.entity}
            out["config"] |= {item.key: json.loads(item.value_json) for item in run.config.update}
        elif kind == "history":
            out["history"].append({_key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            out["summary"] |= {_key(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "artifact":
            out["artifacts"].append((record.artifact.type, [entry.path for entry in record.artifact.manifest.contents]))
        elif kind == "exit":
            out["exit_code"] = record.exit.exit_code
    return out


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def _records(path: Path) -> Iterator[Any]:
    """W&B's run file is a LevelDB log: blocks of 32 KiB, chunks with checksum (4), length (2) and type (1)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:  # padding
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        assert kind in (1, 2, 3, 4), f"chunk of type {kind} at byte {position}"
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # full, or last of several
            yield Record.FromString(parts)
            parts = b""


def wandb_processes(path: Path) -> list[psutil.Process]:
    """Processes that hold the W&B runs of a folder, or of folders in it."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any("wandb_process.py" in word for word in words) and any(str(path) in word for word in words):
            found.append(process)
    return found
