import io
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import huggingface_hub.constants
import pytest

from corrsteer.features import NEURONPEDIA, Feature
from corrsteer.runs import explanations
from corrsteer.runs.explanations import explain, with_explanations

PAGE = "gemma-2-2b/3-gemmascope-res-16k/17"
ANSWERS = {
    f"/api/feature/{PAGE}": {"explanations": [{"description": "refusing\n politely"}, {}]},
    "/api/feature/gemma-2-2b/3-gemmascope-res-16k/18": {"explanations": []},
}


def feature(latent: int, page: str | None = "gemma-2-2b/3-gemmascope-res-16k") -> Feature:
    url = page and f"{NEURONPEDIA}/{page}/{latent}"
    hook = "blocks.3.hook_resid_post"
    return Feature(hook, 3, latent, 1.0, 0.5, (0.4, 0.6), 0.01, 0.9, 0.95, None, url)


@pytest.fixture
def server(monkeypatch):
    """A server that answers like Neuronpedia; the paths it was asked for."""
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            found = ANSWERS.get(self.path)
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        monkeypatch.setattr(explanations, "API", f"http://127.0.0.1:{http.server_port}/api/feature")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield asked
        http.shutdown()
        thread.join()


def test_features_get_their_first_explanation_and_are_asked_for_once(server, tmp_path):
    features = [feature(17), feature(18), feature(19), feature(17), feature(5, None)]
    found = explain(features, cache=tmp_path)
    assert found == {f"{NEURONPEDIA}/{PAGE}": "refusing politely"}
    assert len(server) == 3
    assert explain(features, cache=tmp_path) == found
    assert len(server) == 3
    explained = with_explanations(features, found)
    right = "refusing politely"
    assert [f.explanation for f in explained] == [right, None, None, right, None]


def test_a_page_with_a_path_trick_is_not_asked_for(server, tmp_path):
    assert explain([feature(1, "../../x"), feature(1, "a/..")], cache=tmp_path) == {}
    assert server == []
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_it_is_said_once_and_the_rest_goes_on(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(explanations, "API", "http://127.0.0.1:9/api/feature")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with caplog.at_level("INFO", logger="corrsteer"):
        assert explain([feature(17), feature(18)], cache=tmp_path) == {}
    assert caplog.text.count("cannot be reached") == 1


def test_offline_mode_shows_what_was_fetched_before(server, monkeypatch, tmp_path, caplog):
    found = explain([feature(17)], cache=tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with caplog.at_level("INFO", logger="corrsteer"):
        assert explain([feature(17), feature(18)], cache=tmp_path) == found
    assert len(server) == 1
    assert caplog.text.count("HF_HUB_OFFLINE") == 1


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"{}", b'"old"', b'{"page": "other", "text": "a"}', b"\xff"]
)
def test_what_the_cache_holds_of_something_else_is_asked_for_again(server, tmp_path, content):
    """As of a page whose name differs by case alone, on file systems that do not see that."""
    found = explain([feature(17)], cache=tmp_path)
    (tmp_path / f"{PAGE}.json").write_bytes(content)
    assert explain([feature(17)], cache=tmp_path) == found
    assert len(server) == 2


def test_what_the_cache_holds_beyond_the_longest_answer_is_not_read(server, tmp_path, monkeypatch):
    found = explain([feature(17)], cache=tmp_path)
    (tmp_path / f"{PAGE}.json").write_text(json.dumps({"page": PAGE, "text": "x" * 10_000}))
    monkeypatch.setattr(explanations, "LONGEST_ANSWER", 9_000)
    assert explain([feature(17)], cache=tmp_path) == found


def test_a_pipe_in_the_cache_is_not_waited_for(server, tmp_path):
    (tmp_path / PAGE).parent.mkdir(parents=True)
    os.mkfifo(tmp_path / f"{PAGE}.json")
    assert len(explain([feature(17)], cache=tmp_path)) == 1


def test_a_cache_that_cannot_be_written_to_is_said_once(server, tmp_path, caplog):
    (tmp_path / "gemma-2-2b").write_text("a file")
    with caplog.at_level("INFO", logger="corrsteer"):
        assert len(explain([feature(17), feature(18)], cache=tmp_path)) == 1
    assert caplog.text.count("explanations are not kept for the next time") == 1


@pytest.mark.parametrize("answer", [b"[" * 100_000, b" " * 1001, b"\xff", b"{"])
def test_an_answer_that_is_none_is_as_no_answer(monkeypatch, tmp_path, caplog, answer):
    monkeypatch.setattr(explanations, "LONGEST_ANSWER", 1000 if answer[0] == 32 else 10**6)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(explanations, "urlopen", lambda *_, **__: io.BytesIO(answer))
    with caplog.at_level("INFO", logger="corrsteer"):
        assert explain([feature(17)], cache=tmp_path) == {}
    assert caplog.text.count("cannot be reached") == 1
