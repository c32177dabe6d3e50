"""What SECURITY.md promises of the source, read off the source."""

import ast
from pathlib import Path

import pytest

from corrsteer.cli import main

PACKAGE = Path(__file__).parents[1] / "src" / "corrsteer"
SOURCES = sorted(PACKAGE.rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_READERS = {("torch", "load"), ("yaml", "load"), ("os", "system")}


def faults(source: str) -> set[str]:
    """What of a source would unpickle, evaluate or trust."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & UNSAFE_MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} & UNSAFE_MODULES
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in UNSAFE_CALLS:
                found.add(function.id)
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                called = (function.value.id, function.attr)
                found |= {".".join(called)} if called in UNSAFE_READERS else set()
            found |= unpickled_weights(node)
            for keyword in node.keywords:
                given = keyword.value
                value = given.value if isinstance(given, ast.Constant) else None
                if keyword.arg in ("trust_remote_code", "allow_pickle", "shell") and value is not (
                    False
                ):
                    found.add(keyword.arg)
    return found


def unpickled_weights(call: ast.Call) -> set[str]:
    """A model's loading, if it may read a pickle."""
    safe = {"use_safetensors": True}
    given = {each.arg: ast.unparse(each.value) for each in call.keywords}
    name = ast.unparse(call.func)
    if name.startswith("AutoModel") and name.endswith(".from_pretrained"):
        return set() if given.get("use_safetensors") == "True" else {name}
    if name == "CrossEncoder":
        return set() if given.get("model_kwargs") == ast.unparse(ast.parse(str(safe))) else {name}
    return set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_source_unpickles_evaluates_or_trusts(path):
    assert faults(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from dill import loads", "eval('1')", "exec('1')", "torch.load(p)",
     "AutoModel.from_pretrained(p)", "AutoModel.from_pretrained(p, use_safetensors=x)",
     "CrossEncoder(p)", "f(trust_remote_code=True)", "f(trust_remote_code=x)",
     "np.load(p, allow_pickle=True)"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source):
    assert faults(source)


def test_a_token_reaches_neither_a_run_nor_what_is_printed(
    hub, task_file, tmp_path, monkeypatch, capfd
):
    token = "hf_" + "aSecretOfTheUser" * 2
    monkeypatch.setenv("HF_TOKEN", token)
    arguments = [
        "train", f"--model={hub / 'model'}", f"--sae={hub / 'saes'}", f"--task={task_file}",
        r"--scorer=regex:^\s*[n-zN-Z0-4]", "--max-new-tokens=2", "--strategy=S",
        "--controls=1", f"--out={tmp_path / 'run'}", "--json",
    ]  # fmt: skip
    main(arguments)
    captured = capfd.readouterr()
    assert token not in captured.out + captured.err
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if token.encode() in path.read_bytes()]
