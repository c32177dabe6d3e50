"""The real consumers: each test is skipped where its consumer is not installed.

`make verify-lm-eval`, `make verify-llama-cpp` and `make verify-vllm` install them and run these.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from conftest import tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

import corrsteer as cs
from corrsteer.export import find_consumer
from corrsteer.export.lm_eval import _with_model
from corrsteer.export.verify import Installation, verify
from corrsteer.hook_points import HookPoint
from corrsteer.lm.hooks import adding
from corrsteer.runs.steering import Steering

pytestmark = pytest.mark.consumer

ROOT = Path(__file__).parents[1]
LLAMA_CPP = os.environ.get("CORRSTEER_LLAMA_CPP", str(ROOT / ".venv-llama-cpp/bin/python"))
"""A Python that has llama-cpp-python."""
VLLM = os.environ.get("CORRSTEER_VLLM", str(ROOT / ".venv-vllm/bin/python"))
"""A Python that has vLLM and CorrSteer."""


def write_llama(folder):
    """A random Llama of 4 layers with the tests' tokenizer."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=256,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.08)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=["llama", "mini"])
def big(request, tmp_path_factory):
    """A random Llama, and the built-in Gemma-2."""
    if request.param == "mini":
        return cs.load_model("mini", dtype="float32", device="cpu")
    return cs.load_model(write_llama(tmp_path_factory.mktemp("llama")), device="cpu")


def steering(lm, layers=(1, 2), scale=0.5, **options):
    generator = torch.Generator().manual_seed(7)
    vectors = {
        HookPoint(layer, "resid_post"): scale * torch.randn(lm.d_model, generator=generator)
        for layer in layers
    }
    return Steering(vectors, model=lm.id, **options)


def prompts(lm):
    texts = ("Request: show how to freeze the clock\nResponse:", "Q: who is it?\nA:", "what")
    return [lm.tokenizer(text)["input_ids"] for text in texts]


def check(found, scopes):
    assert [finding.scope for finding in found.findings] == scopes
    for finding in found.findings:
        assert finding.passed, finding
        assert finding.same_text
        assert finding.max_difference <= found.tolerance < finding.effect


@pytest.mark.parametrize("positions", ["generated", "all"])
def test_lm_eval_does_what_we_do(big, positions):
    pytest.importorskip("lm_eval")
    made = steering(big, (0, 1, 2), positions=positions, strength=0.7)
    found = verify(big, made, find_consumer("lm-eval"), prompts(big), max_new_tokens=12)
    check(found, ["all", positions])
    assert all(finding.likelihood_difference < 1e-3 for finding in found.findings)
    if positions == "generated":
        assert found.findings[0].scope_effect > 0.01


def likelihood(lm, made, context, continuation):
    """Log-likelihood of a continuation, and whether each token is the likeliest, by our hooks."""
    with torch.no_grad(), adding(lm.model, made.scaled(), made.positions):
        lm.model(torch.tensor([context]), use_cache=False)  # where the prompt ends
        logits = lm.model(torch.tensor([context + continuation]), use_cache=False).logits[0]
    scores = torch.log_softmax(logits[len(context) - 1 : -1], -1)
    own = scores.gather(1, torch.tensor(continuation)[:, None]).sum()
    return float(own), scores.argmax(-1).tolist() == continuation


def test_lm_eval_likelihoods_are_steered_from_the_end_of_each_context(big, tmp_path):
    pytest.importorskip("lm_eval")
    from corrsteer.export.lm_eval_model import CorrSteerLM

    made = steering(big)
    made.save(tmp_path / "run")
    harness = CorrSteerLM(steering=str(tmp_path / "run"), device="cpu", dtype="float32")
    context = prompts(big)[0]
    # the same tokens, cut in two places; one-token continuations that share a context; lengths mix
    requests = [
        (("a", "b"), context, [5, 6, 7]),
        (("a", "c"), [*context, 5], [6, 7]),
        (("a", "d"), [*context, 5, 6], [7]),
        (("a", "e"), [*context, 5, 6], [9]),
        (("f", "g"), prompts(big)[2], [8]),
    ]
    expected = [likelihood(big, made, request[1], request[2]) for request in requests]
    for size in (1, 3, 64):
        found = harness._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=size)
        for (value, greedy), (own, own_greedy) in zip(found, expected, strict=True):
            assert value == pytest.approx(own, abs=1e-3)
            assert greedy == own_greedy
    assert expected[1][0] != pytest.approx(expected[0][0], abs=0.1)
    # in a rolling likelihood everything is said by the model: all positions are steered
    ((value, _),) = harness._loglikelihood_tokens([(None, context[:3], context[3:])], True, 1)
    everywhere = likelihood(big, steering(big, positions="all"), context[:3], context[3:])
    assert value == pytest.approx(everywhere[0], abs=1e-3)


def test_lm_eval_refuses_a_steering_for_another_model(big, tmp_path):
    pytest.importorskip("lm_eval")
    from corrsteer.errors import ModelError
    from corrsteer.export.lm_eval_model import CorrSteerLM

    path = steering(big, metadata={"model_type": "gpt2"}).save(tmp_path / "run")
    options = {"steering": str(path), "device": "cpu", "dtype": "float32"}
    with pytest.raises(ModelError, match="type gpt2"):
        CorrSteerLM(**options)
    assert CorrSteerLM(**options, force=True).max_length


TASKS = {
    "say": """
task: say
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{target}}"
generation_kwargs: {until: ["#"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
""",
    "choose": """
task: choose
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_target: 0
doc_to_choice: [" A", " bc d"]
target_delimiter: ""
metric_list: [{metric: acc}]
""",
}


def test_lm_eval_runs_tasks_from_its_own_command_line(big, tmp_path):
    pytest.importorskip("lm_eval")
    texts = ["Request: show the clock\nResponse:", "Q: who?\nA:", "what is it"]
    rows = [json.dumps({"prompt": text, "target": "x"}) for text in texts]
    (tmp_path / "rows.json").write_text("\n".join(rows))
    (tmp_path / "tasks").mkdir()
    for name, text in TASKS.items():
        text = text.replace("DATA", str(tmp_path / "rows.json"))
        (tmp_path / "tasks" / f"{name}.yaml").write_text(text)
    made = steering(big)
    made.save(tmp_path / "run")
    command = (
        *(sys.executable, "-W", "ignore", "-m", "corrsteer.export.lm_eval"),
        *("--model_args", f"steering={tmp_path / 'run'},strength=1,dtype=float32"),
        *("--tasks", "say,choose", "--include_path", str(tmp_path / "tasks")),
        *("--device", "cpu", "--batch_size", "2", "--log_samples"),
        *("--output_path", str(tmp_path / "out")),
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    samples = {
        name: [
            json.loads(line)
            for path in (tmp_path / "out").rglob(f"samples_{name}_*.jsonl")
            for line in path.read_text().splitlines()
        ]
        for name in TASKS
    }
    with cs.steer(big, made):
        replies = big.generate(texts, max_new_tokens=8)
    said = {row["doc"]["prompt"]: row["resps"][0][0] for row in samples["say"]}
    assert said == {text: reply.split("#")[0] for text, reply in zip(texts, replies, strict=True)}
    for row in samples["choose"]:
        prompt = row["doc"]["prompt"]
        for choice, response in zip((" A", " bc d"), row["resps"], strict=True):
            context = big.tokenizer(prompt)["input_ids"]
            continuation = big.tokenizer(prompt + choice)["input_ids"][len(context) :]
            own, _ = likelihood(big, made, context, continuation)
            assert float(response[0][0]) == pytest.approx(own, abs=1e-3)


@pytest.mark.parametrize(
    ("given", "run"),
    [
        (["--tasks", "t"], ["run", "--model", "corrsteer", "--tasks", "t"]),
        (["run", "--tasks", "t"], ["run", "--model", "corrsteer", "--tasks", "t"]),
        (["--model", "hf", "--tasks", "t"], ["--model", "hf", "--tasks", "t"]),
        (["run", "--model=hf"], ["run", "--model=hf"]),
        (["ls", "tasks"], ["ls", "tasks"]),
        ([], []),
    ],
)
def test_lm_eval_gets_our_model_where_none_is_named(given, run):
    assert _with_model(given) == run


def test_lm_eval_tells_a_mistake_in_one_line(tmp_path):
    pytest.importorskip("lm_eval")
    command = (
        *(sys.executable, "-m", "corrsteer.export.lm_eval"),
        *("--model_args", f"steering={tmp_path / 'none'}", "--tasks", "arc_easy"),
    )
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("corrsteer: no steering at")


@pytest.mark.parametrize("positions", ["generated", "all"])
def test_llama_cpp_does_what_we_do(big, tmp_path, positions):
    if not Path(LLAMA_CPP).exists():
        pytest.skip("llama-cpp-python is not installed; make verify-llama-cpp")
    from gguf_models import write_gguf

    write_gguf(big.model, tmp_path / "model.gguf")
    found = verify(
        big,
        steering(big, (0, 1, 2), positions=positions, strength=0.7),
        find_consumer("llama.cpp"),
        prompts(big),
        max_new_tokens=12,
        installation=Installation(LLAMA_CPP, str(tmp_path / "model.gguf")),
        drop_block_0=True,
    )
    check(found, ["all", positions])
    assert "block 0 is left out" in found.notes[0]


@pytest.fixture
def vllm():
    if not Path(VLLM).exists():
        pytest.skip("vLLM is not installed; make verify-vllm")
    return VLLM


def test_vllm_does_what_we_do(big, vllm):
    made = steering(big, (0, 1, 2), strength=0.7)
    consumer, there = find_consumer("vllm"), Installation(vllm)
    found = verify(big, made, consumer, prompts(big), max_new_tokens=12, installation=there)
    check(found, ["generated", "generated"])


SERVE = """
import json, sys
from vllm import LLM, SamplingParams
from vllm.exceptions import VLLMValidationError

def main():
    given = json.loads(open(sys.argv[1]).read())
    llm = LLM(
        given["model"], dtype="float32", enforce_eager=given["eager"], enable_prefix_caching=False,
        block_size=32, num_gpu_blocks_override=8, kv_cache_memory_bytes=64 << 20,
        max_model_len=128, max_num_seqs=4, max_num_batched_tokens=24,
        enable_chunked_prefill=True, disable_log_stats=False,
    )
    def ask(prompts, strengths):
        params = [
            SamplingParams(
                temperature=0.0, max_tokens=given["max_tokens"], ignore_eos=True,
                extra_args=None if strength is None else {"steer_strength": strength},
            )
            for strength in strengths
        ]
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        return [list(said.outputs[0].token_ids) for said in llm.generate(asked, params)]
    refused = 0
    for strength in ("much", float("nan"), 1e9, [1.0]):
        try:
            ask(given["prompts"][:1], [strength])
        except VLLMValidationError as error:
            refused += "steer_strength" in str(error)
    said = ask(given["prompts"], given["strengths"])
    preemptions = [m.value for m in llm.get_metrics() if m.name == "vllm:num_preemptions"]
    with open(sys.argv[2], "w") as out:
        json.dump({"said": said, "refused": refused, "preemptions": sum(preemptions)}, out)

if __name__ == "__main__":
    main()
"""


def served(vllm, folder, given, steering_path):
    """What vLLM says to the requests, in a process of its own."""
    (folder / "serve.py").write_text(SERVE)
    (folder / "given.json").write_text(json.dumps(given))
    environment = {**os.environ, "CORRSTEER_STEERING": str(steering_path)}
    command = [vllm, str(folder / "serve.py"), str(folder / "given.json"), str(folder / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "out.json").read_text())


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
def test_vllm_steers_each_request_at_its_own_strength(vllm, tmp_path, eager):
    lm = cs.load_model(write_llama(tmp_path / "model"), device="cpu")
    made = steering(lm, (0, 1, 2), strength=0.7)
    path = made.save(tmp_path / "run")
    texts = ("Q: who is it and where was the clock that was frozen at noon?\nA:", "what", "say it")
    asked = [lm.tokenizer(text)["input_ids"] for text in texts] * 2
    strengths = [None, 0.0, 1.5, 0.7, "0.25", -1]
    given = {
        "model": lm.id,
        "eager": eager,
        "prompts": asked,
        "strengths": strengths,
        "max_tokens": 60,
    }
    expected = []
    for prompt, strength in zip(asked, strengths, strict=True):
        with cs.steer(lm, made, None if strength is None else float(strength)):
            ids = torch.tensor([prompt])
            said = lm.model.generate(ids, max_new_tokens=60, do_sample=False, eos_token_id=-1)
        expected.append(said[0, len(prompt) :].tolist())
    # first without steering: what vLLM then has compiled must not be taken for the steered graph
    plain = served(vllm, tmp_path, {**given, "strengths": [None] * 6}, "") if not eager else None
    found = served(vllm, tmp_path, given, path)
    assert found["said"] == expected
    assert found["refused"] == 4
    assert found["preemptions"] > 0
    if plain is not None:
        assert plain["said"][1] == expected[1]
        assert plain["said"][0] != expected[0]


def test_vllm_refuses_to_start_where_it_would_steer_wrongly(vllm, tmp_path):
    lm = cs.load_model(write_llama(tmp_path / "model"), device="cpu")
    path = steering(lm).save(tmp_path / "run")
    code = (
        "from vllm import LLM\nif __name__ == '__main__':\n"
        f"    LLM({lm.id!r}, dtype='float32', enforce_eager=True, kv_cache_memory_bytes=64 << 20)\n"
    )
    (tmp_path / "start.py").write_text(code)
    done = subprocess.run(
        [vllm, str(tmp_path / "start.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "CORRSTEER_STEERING": str(path)},
    )
    assert done.returncode != 0
    assert (
        "prefix caching would hand steered keys and values to other requests"
        in done.stdout + done.stderr
    )


def test_vllm_over_http_refuses_a_bad_request_and_goes_on(vllm, tmp_path):
    lm = cs.load_model(write_llama(tmp_path / "model"), device="cpu")
    made = steering(lm, strength=0.7)
    path = made.save(tmp_path / "run")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = (
        *(vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", lm.id),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"),
        *("--no-enable-prefix-caching", "--kv-cache-memory-bytes", str(64 << 20)),
    )
    prompt = lm.tokenizer("Q: who?\nA:")["input_ids"]

    def ask(strength):
        body = {"model": lm.id, "prompt": prompt, "max_tokens": 8, "temperature": 0}
        body |= {"vllm_xargs": {"steer_strength": strength}} if strength is not None else {}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())["choices"][0]["text"]

    environment = {**os.environ, "CORRSTEER_STEERING": str(path)}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()[-2000:]
                time.sleep(1)
        own = ask(None)
        with pytest.raises(urllib.error.HTTPError, match="400") as refusal:
            ask("much")
        assert "steer_strength is 'much'" in refusal.value.read().decode()
        assert ask(None) == own
        for strength in (None, 0.0, 1.5):
            with cs.steer(lm, made, strength):
                assert ask(strength) == lm.generate(["Q: who?\nA:"], max_new_tokens=8)[0]
    finally:
        server.terminate()
        server.wait(60)
