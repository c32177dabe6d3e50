"""A steering pushed to a hub and loaded from it again, over HTTP: a hub of this machine."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import ModelCard

from corrsteer.features import Feature
from corrsteer.hook_points import HookPoint
from corrsteer.runs.steering import Steering

NAME, COMMIT, TOKEN = "me/mine", "c" * 40, "hf_of_the_test"
FILES = ["README.md", "config.json", "steer.py", "steering.safetensors"]


class Server(ThreadingHTTPServer):
    """A repository: what was created, its files, its large objects, and what was asked in vain."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Hub)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.created: dict = {}
        self.summary = ""
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.unknown: list[str] = []


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub to upload a folder and to download a file."""

    server: Server

    def do_POST(self):
        assert self.headers["Authorization"] == f"Bearer {TOKEN}"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self.answer({"url": f"{self.server.address}/{NAME}"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path == f"/api/models/{NAME}/preupload/main":
            self.answer({"files": [self.way(file["path"]) for file in json.loads(body)["files"]]})
        elif self.path == f"/{NAME}.git/info/lfs/objects/batch":
            objects = [self.place(each) for each in json.loads(body)["objects"]]
            self.answer({"transfer": "basic", "objects": objects})
        elif self.path == f"/api/models/{NAME}/commit/main":
            self.commit(map(json.loads, body.splitlines()))
            url = f"{self.server.address}/{NAME}/commit/{COMMIT}"
            self.answer({"commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})
        else:
            self.unknown()

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.removeprefix("/objects/")
        assert hashlib.sha256(content).hexdigest() == name
        self.server.objects[name] = content
        self.answer({})

    def do_HEAD(self):
        self.resolve()

    def do_GET(self):
        self.resolve()

    def way(self, path):
        """Large formats by LFS, as the hub's own `.gitattributes` has it."""
        mode = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False}

    def place(self, each):
        href = f"{self.server.address}/objects/{each['oid']}"
        return {**each, "actions": {"upload": {"href": href}}}

    def commit(self, lines):
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.summary = value["summary"]
            elif line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                self.server.files[value["path"]] = self.server.objects[value["oid"]]

    def resolve(self):
        """A file of the repository, or what there is of it to know."""
        path = self.path.removeprefix(f"/{NAME}/resolve/main/")
        if path not in self.server.files:
            self.unknown()
            return
        content = self.server.files[path]
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def answer(self, document):
        content = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def unknown(self):
        self.server.unknown.append(f"{self.command} {self.path}")
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def made():
    feature = Feature("blocks.1.hook_resid_post", 1, 3, 2.0, 0.5, (0.4, 0.6), 0.01, 0.9, 0.95, None)
    vector = torch.randn(16, generator=torch.Generator().manual_seed(0))
    return Steering({HookPoint(1, "resid_post"): vector}, (feature,), "gemma2b", None, strength=0.5)


PUSH = """
import sys
from corrsteer import Steering
print(Steering.load(sys.argv[1]).push_to_hub("me/mine", private=True, commit_message="A steering"))
"""
PULL = """
import sys
from corrsteer import Steering
Steering.from_pretrained("me/mine", cache_dir=sys.argv[2]).save(sys.argv[1])
"""


def python(code, server, *arguments):
    """What code prints where the hub is that server."""
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
    }
    variables |= {"HF_ENDPOINT": server.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + str(server.unknown)
    return done.stdout


def test_what_is_pushed_arrives_and_comes_back(server, tmp_path):
    steering = made()
    steering.save(tmp_path / "mine")
    pushed = python(PUSH, server, tmp_path / "mine")
    assert f"{server.address}/{NAME}/commit/{COMMIT}" in pushed
    assert (server.created["name"], server.created["organization"]) == ("mine", "me")
    assert server.created.get("private") or server.created.get("visibility") == "private"
    assert server.summary == "A steering"

    steering.save_pretrained(tmp_path / "local")
    assert sorted(server.files) == FILES
    for name in FILES[:-1]:  # safetensors writes its header in any order
        assert server.files[name] == (tmp_path / "local" / name).read_bytes()
    assert list(server.objects.values()) == [server.files["steering.safetensors"]]
    card = ModelCard(server.files["README.md"].decode())
    assert card.data.base_model == "google/gemma-2-2b-it"
    assert "| `blocks.1.hook_resid_post` | 3 |" in card.text

    python(PULL, server, tmp_path / "back", tmp_path / "cache")
    back = Steering.load(tmp_path / "back")
    assert back.features == steering.features
    assert torch.equal(
        back.vectors[HookPoint(1, "resid_post")], next(iter(steering.vectors.values()))
    )
    assert (back.model, back.strength) == (steering.model, 0.5)
    cached = tmp_path / "cache" / "models--me--mine" / "snapshots" / COMMIT
    assert (cached / "steering.safetensors").read_bytes() == server.files["steering.safetensors"]
