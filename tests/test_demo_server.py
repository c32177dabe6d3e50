"""The demo's server against visitors who mean no good: part of `make test-browser`.

Skipped where gradio is missing.
"""

import asyncio
import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio")
from conftest import SCORER
from starlette.authentication import AuthenticationError
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

from corrsteer.demo import access
from corrsteer.demo.access import Headers, OwnNames, OwnPaths, Password, ask_for_password

pytestmark = pytest.mark.filterwarnings("ignore")  # gradio's own
PASSWORD = "correct horse"


def status(app, method="GET", path="/", host="localhost"):
    """The status of the answer to a request, and its headers."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"host", host.encode())]}
    asyncio.run(app(scope | {"query_string": b"", "client": ("192.0.2.1", 1)}, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


FINE = PlainTextResponse("fine")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((f"{name}{port}", 200) for port in ("", ":80", ":7860")
          for name in ("localhost", "LOCALHOST", "127.0.0.1", "[::1]")),
        *((name, 400) for name in ("", "example.org", "localhost.example.org", "[::2]", "::1",
          "127.0.0.1.example.org", "[::1", "[", "example.org:80", "a@example.org")),
    ],
)  # fmt: skip
def test_only_requests_to_this_machine_by_its_own_name_are_answered(host, expected):
    found, headers = status(Headers(OwnNames(FINE)), host=host)
    assert found == expected
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", 200),
        ("HEAD", "/theme.css", 200),
        ("POST", "/gradio_api/queue/join", 200),
        ("POST", "/gradio_api/run/predict", 200),
        ("POST", "/gradio_api/upload", 404),
        ("POST", "/gradio_api/upload/", 404),
        ("POST", "/gradio_api/process_recording", 404),
        ("POST", "/gradio_api/call/v2/ask", 404),
        ("POST", "/", 404),
        ("DELETE", "/gradio_api/queue/join", 404),
    ],
)
def test_what_the_page_does_not_post_to_is_not_there(method, path, expected):
    assert status(OwnPaths(FINE), method, path)[0] == expected


def guess(password, address="192.0.2.1"):
    credentials = base64.b64encode(f"me:{password}".encode())
    headers = [(b"authorization", b"Basic " + credentials)]
    return HTTPConnection({"type": "http", "headers": headers, "client": (address, 1)})


async def answers(backend, connections):
    """Of each, in their order: seconds, and why it was refused, if it was."""

    async def one(connection):
        start = time.monotonic()
        try:
            await backend.authenticate(connection)
        except AuthenticationError as error:
            return time.monotonic() - start, str(error)
        return time.monotonic() - start, None

    return await asyncio.gather(*map(one, connections))


def test_guesses_at_once_are_as_slow_as_one_after_the_other(monkeypatch):
    monkeypatch.setattr(access, "WRONG_PASSWORD_SECONDS", 0.05)
    guesses = [guess("wrong") for _ in range(10)] + [guess(PASSWORD), guess(PASSWORD, "192.0.2.2")]
    found = asyncio.run(answers(Password(PASSWORD), guesses))
    assert [reason for _, reason in found] == ["wrong password"] * 10 + [None, None]
    assert found[9][0] >= 10 * 0.05
    assert found[10][0] >= 10 * 0.05, "a right one is found no sooner behind wrong ones"
    assert found[11][0] < 0.04, "another visitor does not wait"


def test_more_guesses_than_may_wait_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(access, "WRONG_PASSWORD_SECONDS", 0.01)
    backend = Password(PASSWORD)
    guesses = [guess("wrong", f"2001:db8::{n:x}") for n in range(40)] + [
        guess(PASSWORD, "2001:db8::ffff"),
        guess(PASSWORD, "2001:db8:1::1"),
    ]
    reasons = [reason for _, reason in asyncio.run(answers(backend, guesses))]
    assert reasons.count("wrong password") == access.WAITING_GUESSES
    assert reasons[-2:] == ["too many wrong passwords; wait", None]
    again = [guess(PASSWORD, "2001:db8::1")] * 50
    assert {reason for _, reason in asyncio.run(answers(backend, again))} == {None}
    assert len(backend._turns) == 0


def test_a_request_without_the_password_is_told_to_ask_for_it():
    app = AuthenticationMiddleware(FINE, backend=Password(PASSWORD), on_error=ask_for_password)
    found, headers = status(app)
    assert found == 401
    assert headers[b"www-authenticate"].startswith(b"Basic")


@pytest.fixture(scope="module")
def run(hub, tmp_path_factory):
    """A run of the tiny model that steers at every layer, with long replies."""
    root = tmp_path_factory.mktemp("served")
    rows = [json.dumps({"prompt": f"say {i}"}) for i in range(60)]
    (root / "letters.jsonl").write_text("\n".join(rows))
    command = [
        sys.executable, "-c", "from corrsteer.cli import main; main()", "train",
        f"--model={hub / 'model'}", f"--sae={hub / 'saes'}", f"--task={root / 'letters.jsonl'}",
        f"--scorer={SCORER}", "--max-new-tokens=100", "--strategy=A", "--strength=2",
        "--controls=0", "--permutations=0", "--val-limit=4", f"--out={root / 'run'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / "run"


@contextmanager
def serving(run, *options):
    """A demo in a process of its own, impatient: the process and its address."""
    code = (
        "from corrsteer.demo import server; server.REQUEST_SECONDS = 0.5\n"
        "from corrsteer.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "demo", str(run), "--port=0", "--no-open", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, **pipes)
    try:
        yield process, urlsplit(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()


def asked(address, method, path, body=None, seconds=20):
    """Status and content of an answer."""
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=seconds)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def odd_requests(events):
    """Bodies of which none comes from the page."""
    yield from (b"", b"{", b"[]", b"null", b"[" * 50_000, b'{"data": null}')
    fields = ([], [None] * 6, ["x"] * 6, [{}] * 6, [[]] * 6, ["run", "9" * 5000], ["run", None])
    fields += ([None, "run", "", "p", None, None], [None, "run", "", "p", [1], "1"])
    fields += ([None, "run", "", None, [], float("nan")], ["run", "\u00b2"], [None, None, []])
    for event in range(-1, events + 2):
        for data in fields:
            yield json.dumps({"data": data, "fn_index": event, "session_hash": "a"}).encode()


GARBAGE = (
    b"\0" * 99,
    b"GET / HTTP/9.9\r\n\r\n",
    b"A" * 200_000,
    b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
)


def test_a_demo_on_the_other_loopback_takes_what_it_is_sent(run):
    with serving(run, "--host=::1") as (process, address):
        assert asked(address, "GET", "/")[0] == 200
        events = len(json.loads(asked(address, "GET", "/config")[1])["dependencies"])
        for body in odd_requests(events):
            for path in ("/gradio_api/queue/join", "/gradio_api/run/predict"):
                asked(address, "POST", path, body)
        for content in GARBAGE:
            with socket.create_connection((address.hostname, address.port)) as connection:
                connection.sendall(content)
        assert asked(address, "POST", "/gradio_api/upload", b"x")[0] == 404
        half_open = (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n",
                     b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: localhost\r\n"
                     b"Content-Length: 999\r\n\r\n{")  # fmt: skip
        for content in half_open:
            with socket.create_connection((address.hostname, address.port)) as connection:
                connection.settimeout(10)
                connection.sendall(content)
                while connection.recv(4096):
                    pass
        assert asked(address, "GET", "/")[0] == 200
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err == "corrsteer: the demo runs until Ctrl-C\n"


def test_a_demo_ends_while_many_replies_are_under_way(run):
    with serving(run) as (process, address):
        config = json.loads(asked(address, "GET", "/config")[1])
        ask = next(n for n, each in enumerate(config["dependencies"]) if len(each["inputs"]) == 6)
        values = {each["id"]: each["props"].get("value") for each in config["components"]}
        data = [values[name] for name in config["dependencies"][ask]["inputs"]]
        arrived = threading.Barrier(31)

        def visit(number):
            body = {"data": [None, *data[1:]], "fn_index": ask, "session_hash": f"s{number}"}
            asked(address, "POST", "/gradio_api/queue/join", json.dumps(body).encode())
            arrived.wait()
            with suppress(OSError, http.client.HTTPException):  # it is cut off
                asked(address, "GET", f"/gradio_api/queue/data?session_hash=s{number}")

        for number in range(30):
            threading.Thread(target=visit, args=(number,), daemon=True).start()
        arrived.wait()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=15)
    assert process.returncode == 0
    assert err == "corrsteer: the demo runs until Ctrl-C\n"
