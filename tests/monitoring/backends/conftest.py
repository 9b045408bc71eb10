"""A server that speaks as much of W&B's protocol as a run needs, and keeps what it is sent."""

from __future__ import annotations

import http.server
import json
import threading
import time

import pytest


class Server(http.server.ThreadingHTTPServer):
    """Rows by step, uploaded files by name, and every request's body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.rows: list[dict] = []
        self.uploads: dict[str, bytes] = {}
        self.bodies: list[str] = []
        self.run: dict | None = None
        self.alerts: list[dict] = []
        self.silent = threading.Event()  # when set, rows get no answer any more
        self.url = f"http://127.0.0.1:{self.server_port}"

    def answer(self, query: str, variables: dict) -> dict:
        if "query RunResumeStatus" in query:
            return {"model": {"id": "p", "name": "p", "entity": {"id": "e", "name": "team"}, "bucket": self.bucket()}}
        if "mutation UpsertBucket" in query:
            self.run = {**(self.run or {}), **{key: value for key, value in variables.items() if value is not None}}
            return {"upsertBucket": {"bucket": self.bucket(), "inserted": len(self.rows) == 0}}
        if "mutation CreateRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/put/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if "mutation NotifyScriptableRunAlert" in query:
            self.alerts.append(variables)
            return {"notifyScriptableRunAlert": {"success": True}}
        return {"viewer": {"id": "v", "entity": "team"}}

    def bucket(self) -> dict | None:
        if self.run is None:
            return None
        project = {"id": "p", "name": self.run.get("project"), "entity": {"id": "e", "name": "team"}}
        tail = json.dumps([json.dumps(row) for row in self.rows[-1:]])
        name = self.run.get("name")
        counts = {"logLineCount": 0, "historyLineCount": len(self.rows), "eventsLineCount": 0}
        texts = {
            "summaryMetrics": "{}",
            "historyTail": tail,
            "eventsTail": "[]",
            "config": "{}",
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {"id": "r", "name": name, "displayName": name, "project": project, "tags": [], **counts, **texts}


class Handler(http.server.BaseHTTPRequestHandler):
    """What the server is asked."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said: dict = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            self.server.bodies.append(json.dumps(asked.get("variables")))
            said = {"data": self.server.answer(asked["query"], asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            if self.server.silent.is_set():
                time.sleep(60)
                return
            self.server.bodies.append(body.decode())
            history = json.loads(body).get("files", {}).get("wandb-history.jsonl", {})
            self.server.rows += [json.loads(line) for line in history.get("content", [])]
        self.say(json.dumps(said).encode())

    do_GET = do_POST

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.uploads[self.path.removeprefix("/put/")] = body
        self.say(b"")

    def say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def wandb_server(monkeypatch):
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
