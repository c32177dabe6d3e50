"""What others give: every malformed input is refused in one line, or has the fallback stated here.

All of it goes through the command line, on the tests' tiny model. A case that is not a fallback
must exit with 2, print one line on stderr that has the words given, leave no traceback, end within
`SECONDS`, and write nothing.
"""

import contextlib
import gzip
import io
import json
import os
import pickle
import shutil
import signal
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import D_MODEL, D_SAE, SCORER, write_sae
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import corrsteer as cs
from corrsteer.cli import main
from corrsteer.errors import ArtifactError
from corrsteer.runs import parquet_rows

SECONDS = 60
DEEP = 100_000
HOOK = "blocks.1.hook_resid_post"
JSON_FILES = ("run.json", "features.json", "evaluation.json")
TENSOR_FILES = ("statistics.safetensors", "steering.safetensors")
TABLE_FILES = ("activations.parquet", "outcomes.parquet", "predictions.parquet")


def cases(table):
    """A table of `name -> values` as parameters with their names."""
    return [pytest.param(*values, id=name) for name, values in table.items()]


@contextlib.contextmanager
def limit():
    """An error in place of a hang."""

    def late(*_):
        raise AssertionError(f"still running after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def call(call):
    """Run the command line in its time: exit code, stdout, stderr."""

    def in_time(*arguments):
        with limit():
            return call(*arguments)

    return in_time


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def saved(hub, tmp_path_factory):
    """A run with everything in it; not to be changed."""
    root = tmp_path_factory.mktemp("saved")
    task = root / "letters.jsonl"
    rows = [{"prompt": f"say {i}", "target": "x"} for i in range(60)]
    task.write_text("\n".join(map(json.dumps, rows)))
    with contextlib.redirect_stdout(io.StringIO()):
        main(
            ["train", f"--model={hub / 'model'}", f"--sae={hub / 'saes'}", f"--task={task}",
             f"--scorer={SCORER}", "--max-new-tokens=3", "--strategy=A", "--controls=1",
             "--permutations=20", f"--out={root / 'run'}", "--json"]
        )  # fmt: skip
    return root / "run"


@pytest.fixture
def run(saved, tmp_path):
    """A copy of it."""
    return shutil.copytree(saved, tmp_path / "run")


@pytest.fixture
def letters(tmp_path):
    """A task of 40 rows."""
    path = tmp_path / "letters.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"say {i}", "target": "x"}) for i in range(40)))
    return path


@pytest.fixture
def train(call, hub, letters):
    """A short `train` on the tiny model, with options replaced."""

    def train(**options):
        options = {
            "model": hub / "model",
            "sae": hub / "saes",
            "task": letters,
            "scorer": SCORER,
            "max_new_tokens": 2,
            "strategy": "S",
            "out": "run",
        } | options
        given = [f"--{name}={value}" for name, value in options.items() if value is not None]
        return call("train", "--no-eval", "--json", *given)

    return train


def refused(result, here, *words):
    """Exit 2, one line that has the words, nothing written."""
    code, out, err = result
    assert code == 2, err
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("corrsteer: ")
    assert len(lines[0]) < 1200, "a line that a person reads"
    for word in words:
        assert word in lines[0]
    assert list(here.iterdir()) == []


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def edit(path, change):
    """Change a JSON file's document."""
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(document) or document), encoding="utf-8")


# --- run folders: cut off --------------------------------------------------------------------


def json_sections(content):
    """Before each of the first fields of the document, and inside the last one."""
    places = [at for at in range(len(content)) if content[at : at + 4] == b'\n  "']
    return [*places[:3], places[-1], len(content) - 3]


def tensor_sections(content):
    """Inside the header's length, inside the header, after it, inside the data."""
    header = 8 + int.from_bytes(content[:8], "little")
    return [4, 8, header // 2, header, (header + len(content)) // 2, len(content) - 1]


def table_sections(content):
    """Inside the magic number, the data, and the footer, and before its length."""
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return [2, 4, footer // 2, footer, (footer + len(content)) // 2, len(content) - 8]


CUTS = [
    *((name, json_sections, at) for name in JSON_FILES for at in range(5)),
    *((name, tensor_sections, at) for name in TENSOR_FILES for at in range(6)),
    *((name, table_sections, at) for name in TABLE_FILES for at in range(6)),
]


@pytest.mark.parametrize(("name", "sections", "at"), CUTS)
def test_a_run_cut_off_in_any_section_is_refused(call, run, here, name, sections, at):
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: sections(content)[at]])
    before = snapshot(run)
    refused(call("report", run), here, name, "train again" if name[:2] != "st" else "")
    assert snapshot(run) == before


@pytest.mark.parametrize("name", [*JSON_FILES, *TENSOR_FILES, *TABLE_FILES])
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "endless"])
def test_a_file_of_a_run_that_is_no_file_is_refused(call, run, here, name, kind):
    path = run / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "loop" else "/dev/zero")
    refused(call("report", run), here, name)


# --- run folders: safetensors that lie --------------------------------------------------------


def tensors(header, data=b"\0" * 64, length=None):
    """A safetensors file with this header, told to be of that length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(16,), offsets=(0, 64)):
    return {HOOK: {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize("name", TENSOR_FILES)
@pytest.mark.parametrize(
    "content",
    cases(
        {
            "nothing": [b""],
            "header past the end": [tensors(entry(), length=10_000)],
            "header of 2**63 bytes": [tensors(entry(), length=2**63)],
            "header of all bits": [tensors(entry(), length=2**64 - 1)],
            "header of no bytes": [tensors(b"")],
            "header is a list": [tensors([1, 2])],
            "header is not JSON": [tensors(b"{oops")],
            "header is not UTF-8": [tensors(b'{"\xff": 1}')],
            "header is nested": [tensors(b'{"a":' * DEEP + b"1" + b"}" * DEEP)],
            "data past the end": [tensors(entry(offsets=(0, 10**6), shape=(250_000,)))],
            "data backwards": [tensors(entry(offsets=(64, 0)))],
            "data before the start": [tensors(entry(offsets=(-64, 0)))],
            "data with a gap": [tensors(entry(offsets=(32, 64), shape=(8,)))],
            "shape beyond the data": [tensors(entry(shape=(10**6,)))],
            "shape that overflows": [tensors(entry(shape=(2**40, 2**40)))],
            "shape below zero": [tensors(entry(shape=(-16,)))],
            "shape of fractions": [tensors(entry(shape=(16.5,)))],
            "unknown dtype": [tensors(entry("F7"))],
            "dtype of a byte": [tensors(entry("F8_E4M3", (64,)))],
            "dtype of bits": [tensors(entry("F4", (128,)))],
            "complex numbers": [tensors(entry("C64", (8,)))],
            "truth values": [tensors(entry("BOOL", (64,)))],
            "no dtype": [tensors({HOOK: {"shape": [16], "data_offsets": [0, 64]}})],
            "metadata of numbers": [tensors({"__metadata__": {"schema": 1}, **entry()})],
            "a pickle": [pickle.dumps({HOOK: [1.0]})],
        }
    ),
)
def test_safetensors_that_lie_are_refused(call, run, here, name, content):
    (run / name).write_bytes(content)
    refused(call("report", run), here, str(run))


def with_tensors(change):
    """A change of a safetensors file's tensors and of its metadata."""

    def apply(path):
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
        found = load_file(path)
        change(found, header)
        save_file(found, path, metadata=header)

    return apply


def scalars(**values):
    """A change of the counts and moments of one hook point's statistics."""
    names = ("n", "n_positive", "n_zero", "first_y", "mean_y", "m2_y")

    def change(found, _):
        for name, value in values.items():
            found[f"{HOOK}/scalars"][names.index(name)] = value

    return with_tensors(change)


def statistic(name, value):
    """A change of one statistic: a tensor a new one, None for none, or one value of it."""

    def change(found, _):
        if value is None:
            del found[f"{HOOK}/{name}"]
        elif isinstance(value, torch.Tensor):
            found[f"{HOOK}/{name}"] = value
        else:
            found[f"{HOOK}/{name}"].view(-1)[0] = value

    return with_tensors(change)


def renamed(name):
    """A change of a hook point's name in every statistic of it."""

    def change(found, _):
        for each in [each for each in found if each.startswith(HOOK)]:
            found[each.replace(HOOK, name)] = found.pop(each)

    return with_tensors(change)


@pytest.mark.parametrize(
    ("change", "word"),
    cases(
        {
            "other dtype": [statistic("mean_z", torch.zeros(D_SAE)), "float32"],
            "other shape": [statistic("c_zy", torch.zeros(2, D_SAE).double()), "c_zy"],
            "one too short": [statistic("m2_z", torch.zeros(D_SAE - 1).double()), "m2_z"],
            "no latents": [with_tensors(lambda t, _: t.update(
                {k: v[:0].clone() if "scalars" not in k else v for k, v in t.items()}
            )), "d_sae is 0"],
            "one missing": [statistic("active", None), "lack active"],
            "some of the classes": [statistic("mean_zero", None), "only"],
            "no scalars": [statistic("scalars", None), "lack scalars"],
            "NaN": [statistic("mean_z", torch.nan), "NaN"],
            "infinity": [statistic("sum_zero", torch.inf), "infinity"],
            "n below zero": [scalars(n=-30.0, n_positive=-15.0, n_zero=-15.0), "n"],
            "n a fraction": [scalars(n=30.5), "n"],
            "n without bounds": [scalars(n=1e300), "n"],
            "more positive than there are": [scalars(n_positive=1e6), "n_positive"],
            "no samples": [scalars(n=0.0, n_positive=0.0, n_zero=0.0), "n"],
            "variance below zero": [statistic("m2_z", -1.0), "m2_z"],
            "variance of outcomes below zero": [scalars(m2_y=-1.0), "m2_y"],
            "active more than seen": [statistic("active", 1e9), "active"],
            "histogram below zero": [statistic("histogram", -5), "histogram"],
            "a hook point of another place": [renamed("../../etc"), "hook point"],
            "a hook point of another kind": [renamed("blocks.1.attn.hook_z"), "hook point"],
            "a hook point twice": [
                with_tensors(lambda t, _: t.update(
                    {k.replace("blocks.1", "blocks.01"): v.clone() for k, v in t.items()
                     if k.startswith(HOOK)}
                )), "twice"],
            "a tensor without a hook point": [
                with_tensors(lambda t, _: t.update(mean_z=torch.zeros(3))), "hook point"],
            "no tensors": [with_tensors(lambda t, _: t.clear()), ""],
            "a hook point that no SAE is at": [
                with_tensors(lambda t, _: t.update(
                    {k.replace("blocks.1", "blocks.5"): v.clone() for k, v in t.items()
                     if k.startswith(HOOK)}
                )), "no SAE there"],
            "a hook point less": [
                with_tensors(lambda t, _: [t.pop(k) for k in [*t] if k.startswith(HOOK)]),
                "no statistics there"],
        }
    ),
)  # fmt: skip
def test_statistics_that_cannot_be_are_refused(call, run, here, change, word):
    change(run / "statistics.safetensors")
    before = snapshot(run)
    refused(call("select", run, "--out", "again"), here, word)
    refused(call("report", run), here, word)
    assert snapshot(run) == before


def vector(value, name=HOOK):
    return with_tensors(lambda found, _: found.update({name: value}))


def header(**values):
    return with_tensors(lambda _, header: header.update(values))


@pytest.mark.parametrize(
    ("change", "word"),
    cases(
        {
            "half precision": [vector(torch.zeros(D_MODEL).half()), "float16"],
            "a matrix": [vector(torch.zeros(2, D_MODEL)), "expected float32 [d_model]"],
            "one number": [vector(torch.tensor(1.0)), "expected float32 [d_model]"],
            "NaN": [vector(torch.full((D_MODEL,), torch.nan)), "NaN"],
            "another place": [vector(torch.zeros(D_MODEL), "../steering"), "hook point"],
            "a place twice": [
                vector(torch.ones(D_MODEL), "blocks.01.hook_resid_post"), "twice"],
            "another schema": [header(schema="corrsteer.steering/9"), "schema"],
            "another scope": [header(scope="prompt"), "scope"],
            "strength NaN": [header(strength="nan"), "strength"],
            "strength infinite": [header(strength="1e999"), "strength"],
            "strength in words": [header(strength="strong"), "strong"],
            "features are no JSON": [header(features="[{"), ""],
            "features are nested": [header(features="[" * DEEP), ""],
            "features are numbers": [header(features="[1]"), ""],
            "a layer below zero": [header(features='[{"layer": -1}]'), ""],
            "no model": [with_tensors(lambda _, h: h.pop("model")), "model"],
            "no features": [with_tensors(lambda _, h: h.pop("features")), "features"],
            "no header": [with_tensors(lambda _, h: h.clear()), "schema"],
        }
    ),
)  # fmt: skip
def test_a_steering_that_cannot_be_is_refused(call, run, here, change, word):
    change(run / "steering.safetensors")
    refused(call("report", run), here, "steering.safetensors", word)
    refused(call("export", run, "--to", "torch", "--out", "shared"), here, word)


@pytest.mark.parametrize(
    ("change", "word"),
    cases(
        {
            "wider": [
                with_tensors(lambda t, _: t.update({k: v.repeat(2) for k, v in t.items()})),
                f"d_model {2 * D_MODEL}"],
            "of no width": [
                with_tensors(lambda t, _: t.update({k: v[:0] for k, v in t.items()})),
                "d_model 0"],
            "deeper": [vector(torch.ones(D_MODEL), "blocks.99999.hook_resid_post"), "99999"],
        }
    ),
)  # fmt: skip
def test_a_steering_of_another_model_is_refused(call, run, here, change, word):
    change(run / "steering.safetensors")
    refused(call("eval", run), here, word)


# --- run folders: JSON --------------------------------------------------------------------


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize(
    "content",
    cases(
        {
            "nothing": [b""],
            "white space": [b" \n\t "],
            "null": [b"null"],
            "a list": [b"[]"],
            "nested lists": [b"[" * DEEP],
            "nested objects": [b'{"a":' * DEEP],
            "a number of 5,000 digits": [b'{"schema": ' + b"9" * 5000 + b"}"],
            "UTF-16": ['{"schema": "corrsteer.run/1"}'.encode("utf-16")],
            "a byte order mark": [b'\xef\xbb\xbf{"schema": "corrsteer.run/1"}'],
            "NUL": [b"\0" * 100],
            "the schema alone": [b'{"schema": "corrsteer.run/1"}'],
            "two documents": [b'{"schema": "corrsteer.run/1"} {"schema": "corrsteer.run/1"}'],
            "half a pair": [b'{"schema": "corrsteer.run/1", "model": "\\ud800"}'],
            "a pickle": [pickle.dumps({"schema": "corrsteer.run/1"})],
        }
    ),
)
def test_json_that_is_not_a_runs_is_refused(call, run, here, name, content):
    (run / name).write_bytes(content)
    refused(call("report", run), here, "train again")


def nested(depth):
    document = 1
    for _ in range(depth):
        document = [document]
    return document


def field(*keys, value):
    """A change of a field of a JSON document."""

    def change(document):
        place = document
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def recommending(**changes):
    """A change by which a trial is recommended that was not made."""

    def change(document):
        search = document["search"]
        search["recommended"] = search["trials"][0] | changes

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    cases(
        {
            "model a list": ["run.json", field("model", value=["a"])],
            "guards a text": ["run.json", field("guards", value="none")],
            "SAE ids a list": ["run.json", field("sae_ids", value=["a"])],
            "hook shift a text": ["run.json", field("hook_shift", value="far")],
            "hook shift a fraction": ["run.json", field("hook_shift", value=0.5)],
            "tokens infinite": ["run.json", field("max_new_tokens", value=1e999)],
            "settings null": ["run.json", field("settings", value=None)],
            "seed below zero": ["run.json", field("settings", "seed", value=-1)],
            "seed beyond any": ["run.json", field("settings", "seed", value=10**400)],
            "strength NaN": ["run.json", field("settings", "strength", value=float("nan"))],
            "no strengths": ["run.json", field("settings", "strengths", value=[])],
            "search a number": ["run.json", field("search", value=5)],
            "search of other things": ["run.json", field("search", value={"recommended": 1})],
            "search recommends what was not tried": ["run.json", recommending(strength=99.0)],
            "search recommends nothing in it": ["run.json", recommending(features=[])],
            "search nested": ["run.json", field("search", value={"a": nested(900)})],
            "counts a text": ["run.json", field("counts", value="many")],
            "counts of texts": ["run.json", field("counts", value={"n_fit": "many"})],
            "counts null": ["run.json", field("counts", value={"n_fit": None})],
            "seconds a list": ["run.json", field("counts", "seconds", value=[1])],
            "inference a list": ["run.json", field("inference", value=[1])],
            "inference of other things": ["run.json", field("inference", value={"a": 1})],
            "selected null": ["features.json", field("selected", value=None)],
            "selected a text": ["features.json", field("selected", value="all")],
            "top a list": ["features.json", field("top", value=[])],
            "top elsewhere": ["features.json", field("top", value={"../x": []})],
            "a feature's latent a text": [
                "features.json", field("selected", 0, "latent", value="first")],
            "a feature's interval of three": [
                "features.json", field("selected", 0, "correlation_ci", value=[0, 0, 0])],
            "a feature elsewhere": [
                "features.json", field("selected", 0, "hook_point", value="../../x")],
            "a feature below zero": ["features.json", field("selected", 0, "latent", value=-1)],
            "baseline null": ["evaluation.json", field("baseline", value=None)],
            "delta a text": ["evaluation.json", field("delta", value="up")],
            "interval of one": ["evaluation.json", field("delta", "ci", value=[0.5])],
            "controls a list": ["evaluation.json", field("controls", value=[])],
            "controls of texts": [
                "evaluation.json", field("controls", "random", "accuracies", value=["a"])],
            "guards a number": ["evaluation.json", field("guards", value=3)],
            "strategies unknown": ["evaluation.json", field("strategies", value={"Z": {}})],
            "memory a text": ["evaluation.json", field("peak_memory_mb", value="much")],
        }
    ),
)  # fmt: skip
def test_a_runs_json_of_other_values_is_refused(call, run, here, name, change):
    edit(run / name, change)
    before = snapshot(run)
    refused(call("report", run), here, "train again")
    assert snapshot(run) == before


# --- run folders: tables that lie --------------------------------------------------------------


def log_table(change, metadata=True):
    """A change of the columns of the log of activations."""

    def apply(run):
        path = run / "activations.parquet"
        found = pq.read_table(path)
        kept = found.schema.metadata if metadata else None
        columns = {name: found[name] for name in found.column_names}
        change(columns)
        pq.write_table(pa.table(columns).replace_schema_metadata(kept), path)

    return apply


def column(name, value, dtype=None):
    """A column of nothing but one value."""

    def change(columns):
        length = len(next(iter(columns.values())))
        kind = columns[name].type if dtype is None else dtype
        columns[name] = pa.array([value] * length, kind)

    return log_table(change)


def log_header(**values):
    """A change of what the log says of itself."""

    def apply(run):
        path = run / "activations.parquet"
        found = pq.read_table(path)
        header = json.loads(found.schema.metadata[b"corrsteer"]) | values
        kept = {"corrsteer": json.dumps(header)}
        pq.write_table(found.replace_schema_metadata(kept), path)

    return apply


def table(name, change):
    """A change of a table's columns."""

    def apply(run):
        found = pq.read_table(run / name)
        columns = {each: found[each].to_pylist() for each in found.column_names}
        change(columns)
        pq.write_table(pa.table(columns), run / name)

    return apply


def nested_header(run):
    path = run / "activations.parquet"
    bomb = {"corrsteer": "[" * DEEP}
    pq.write_table(pq.read_table(path).replace_schema_metadata(bomb), path)


@pytest.mark.parametrize(
    "change",
    cases(
        {
            "no header": [log_table(lambda c: None, metadata=False)],
            "header nested": [nested_header],
            "widths of another SAE": [log_header(widths={HOOK: 5})],
            "widths a list": [log_header(widths=[5])],
            "widths texts": [log_header(widths={HOOK: "wide"})],
            "another schema": [log_header(schema="corrsteer.log/9")],
            "no latents": [log_table(lambda c: c.pop("latent"))],
            "latents are texts": [column("latent", "a", pa.string())],
            "latents are missing": [column("latent", None)],
            "latents beyond the SAE": [column("latent", D_SAE)],
            "latents below zero": [column("latent", -1)],
            "samples beyond the last": [column("sample", 10**6)],
            "more activations than latents of samples": [
                log_table(lambda c: c.update({n: x.take([0] * 100_000) for n, x in c.items()}))],
            "samples are dates": [column("sample", 1, pa.date32())],
            "activations NaN": [column("value", np.float16("nan"))],
            "activations infinite": [column("value", np.float16("inf"))],
            "activations are texts": [column("value", "a", pa.string())],
            "activations are missing": [column("value", None)],
            "outcomes are texts": [
                table("outcomes.parquet", lambda c: c.update(outcome=["x"] * len(c["id"])))],
            "outcomes are missing": [
                table("outcomes.parquet", lambda c: c.update(outcome=[None] * len(c["id"])))],
            "outcomes NaN": [
                table("outcomes.parquet", lambda c: c.update(outcome=[np.nan] * len(c["id"])))],
            "outcomes beyond 1": [
                table("outcomes.parquet", lambda c: c.update(outcome=[7.0] * len(c["id"])))],
            "no outcomes": [table("outcomes.parquet", lambda c: c.pop("outcome"))],
            "no ids": [table("outcomes.parquet", lambda c: c.pop("id"))],
            "ids are lists": [
                table("outcomes.parquet", lambda c: c.update(id=[[1]] * len(c["id"])))],
            "a sample less": [
                table("outcomes.parquet", lambda c: [values.pop() for values in c.values()])],
        }
    ),
)  # fmt: skip
def test_a_log_that_lies_is_refused(call, run, here, change):
    change(run)
    refused(call("select", run, "--out", "again"), here, "train again")


@pytest.mark.parametrize(
    "change",
    cases(
        {
            "no replies": [lambda c: c.pop("steered_text")],
            "replies are numbers": [lambda c: c.update(steered_text=[1] * len(c["id"]))],
            "outcomes are texts": [lambda c: c.update(baseline_outcome=["a"] * len(c["id"]))],
            "targets are maps": [lambda c: c.update(target=[{"a": 1}] * len(c["id"]))],
        }
    ),
)
def test_predictions_that_lie_are_refused(call, run, here, change):
    table("predictions.parquet", change)(run)
    before = snapshot(run)
    refused(call("report", run), here, "predictions.parquet")
    assert snapshot(run) == before


# --- run folders: what is named in them ---------------------------------------------------------


def test_what_a_run_calls_html_is_text(call, run, here):
    """Fallback: the report is written, with no script and no link to anything but the web."""
    bad = "<script>alert(1)</script>"
    edit(run / "features.json", field("selected", 0, "explanation", value=bad))
    edit(run / "features.json", field("selected", 0, "url", value="javascript:alert(1)"))
    edit(run / "evaluation.json", field("verdict", value=bad))
    edit(run / "run.json", field("task", value=bad))
    code, _, err = call("report", run)
    assert code == 0, err
    page = (run / "report.html").read_text(encoding="utf-8")
    assert bad not in page
    assert 'href="javascript' not in page


def test_a_run_does_not_write_through_a_link(call, run, here, tmp_path):
    """Fallback: the link is replaced by the file; what it led to stays as it was."""
    (tmp_path / "mine").write_text("mine")
    (run / "report.html").unlink()
    (run / "report.html").symlink_to(tmp_path / "mine")
    assert call("report", run)[0] == 0
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (run / "report.html").is_symlink()


@pytest.mark.parametrize(
    ("change", "word"),
    cases(
        {
            "a scorer": [field("scorer", value="evil_scorer:judge"), "--scorer"],
            "a scorer of the library": [field("scorer", value="os:system"), "--scorer"],
            "a pattern that is none": [field("scorer", value="regex:("), "regular expression"],
            "a pattern without bounds": [
                field("scorer", value="regex:a{99999999999}"), "regular expression"],
            "a task of another place": [field("task", value="../../../etc/passwd"), "task"],
            "a task with NUL": [field("task", value="a\0.jsonl"), "cannot read"],
            "a task without end": [field("task", value="a" * 5000), "task"],
            "a task file without end": [field("task", value="a" * 5000 + ".jsonl"), "cannot read"],
            "a model with NUL": [field("model", value="a\0b/c"), "model"],
            "a model without end": [field("model", value="a" * 5000), "model"],
            "a model of another place": [field("model", value="../../../etc"), "model"],
            "no tokens": [field("max_new_tokens", value=-1), "max_new_tokens"],
            "examples below zero": [field("task_options", "few", value=-5), ""],
            "data of another place": [field("task_options", "data", value="../../etc"), ""],
        }
    ),
)  # fmt: skip
def test_what_a_run_names_is_not_run(call, run, here, change, word, tmp_path, monkeypatch):
    (tmp_path / "evil_scorer.py").write_text(f"open({str(here / 'owned')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    edit(run / "run.json", change)
    refused(call("eval", run), here, word)


def test_the_empty_folder_is_refused(call, here, tmp_path):
    (tmp_path / "empty").mkdir()
    for command in ("report", "select", "eval"):
        refused(call(command, tmp_path / "empty"), here, "has no run.json")


# --- tasks: every kind of broken line -----------------------------------------------------------

ROW = {"prompt": "2 + 2 =", "target": "4"}
LINE = json.dumps(ROW).encode()


@pytest.mark.parametrize(
    ("content", "word"),
    cases(
        {
            "nothing": [b"", "has no rows"],
            "a byte order mark alone": [b"\xef\xbb\xbf", "has no rows"],
            "UTF-16": [(LINE + b"\n" + LINE).decode().encode("utf-16"), "line 1: not UTF-8"],
            "UTF-16 without a mark": [LINE.decode().encode("utf-16-le"), "line 1: not JSON"],
            "UTF-32": [LINE.decode().encode("utf-32"), "line 1: not UTF-8"],
            "Latin-1": ['{"prompt": "caf\xe9"}'.encode("latin-1"), "line 1: not UTF-8"],
            "a cut character": ['{"prompt": "é"}'.encode()[:-3], "line 1: not UTF-8"],
            "an overlong encoding": [b'{"prompt": "\xc0\xaf"}', "line 1: not UTF-8"],
            "a surrogate in the bytes": [b'{"prompt": "\xed\xa0\x80"}', "line 1: not UTF-8"],
            "NUL between rows": [LINE + b"\n\0\n" + LINE, "line 2: not JSON"],
            "NUL in a text": [b'{"prompt": "a\0b"}', "line 1: not JSON"],
            "a tab in a text": [b'{"prompt": "a\tb"}', "line 1: not JSON"],
            "line ends of old": [LINE + b"\r" + LINE, "line 1: not JSON"],
            "a byte order mark between": [LINE + b"\n\xef\xbb\xbf" + LINE, "line 2: not JSON"],
            "two rows on a line": [LINE + LINE, "line 1: not JSON"],
            "a comma behind": [LINE + b",", "line 1: not JSON"],
            "a whole array": [b"[" + LINE + b"]", "line 1: list"],
            "a row over two lines": [LINE.replace(b", ", b",\n"), "line 1: not JSON"],
            "a cut row": [LINE + b"\n" + LINE[:-5], "line 2: not JSON"],
            "quotes of Python": [b"{'prompt': 'a'}", "line 1: not JSON"],
            "words of Python": [b'{"prompt": None}', "line 1: not JSON"],
            "a comment": [b"// rows\n" + LINE, "line 1: not JSON"],
            "CSV": [b"prompt,target\na,b\n", "line 1: not JSON"],
            "gzip": [gzip.compress(LINE), "line 1: not"],
            "a pickle": [pickle.dumps(ROW), "line 1: not"],
            "nested": [b'{"prompt": ' + b"[" * DEEP, "line 1: not JSON (nested too deep)"],
            "nested objects": [b'{"a":' * DEEP, "line 1: not JSON (nested too deep)"],
            "a number of 5,000 digits": [
                b'{"prompt": "a", "id": ' + b"9" * 5000 + b"}", "line 1: not JSON"],
            "10 MB without end": [b'{"prompt": "' + b"a" * 10**7, "line 1: not JSON"],
            "10 MB of brackets": [b"[" * 10**7, "line 1: not JSON"],
            "10 MB where a text belongs": [
                b'{"prompt": ' + b"[" + b"1," * (5 * 10**6) + b"1]}", "`prompt` is"],
            "half a pair in the prompt": [rb'{"prompt": "a\ud800b"}', "line 1: `prompt`"],
            "half a pair in the target": [rb'{"prompt": "a", "target": "\udc00"}', "`target`"],
            "half a pair in the id": [rb'{"prompt": "a", "id": "\ud800"}', "line 1: `id`"],
            "half a pair in a choice": [
                rb'{"prompt": "a", "target": "A", "choices": ["x", "\ud800"]}', "`choices`"],
            "half a pair in a message": [
                rb'{"messages": [{"role": "user", "content": "\ud800"}]}', "`messages`"],
            "half a pair in a message's role": [
                rb'{"messages": [{"role": "\ud800", "content": "a"}]}', "`messages`"],
            "half a pair in another field": [rb'{"prompt": "a", "note": "\ud800"}', "`note`"],
            "half a pair for a name": [rb'{"prompt": "a", "\ud800": 1}', "line 1"],
            "a prompt that is a list": [b'{"prompt": ["a"]}', "`prompt`"],
            "an id that is a list": [b'{"prompt": "a", "id": [null]}', "`id`"],
            "an id that is infinite": [b'{"prompt": "a", "id": Infinity}', "`id`"],
            "one id as text and number": [
                b'{"prompt": "a", "id": 1}\n{"prompt": "b", "id": "1"}', "line 2: id '1'"],
            "a split that is a list": [b'{"prompt": "a", "split": ["fit"]}', "`split`"],
            "split on some lines": [
                b'{"prompt": "a", "split": "fit"}\n{"prompt": "b"}', "line 2: `split`"],
            "a message that is null": [b'{"messages": [null]}', "a message is null"],
            "a message of numbers": [
                b'{"messages": [{"role": 1, "content": 2}]}', "a message is"],
            "27 choices": [
                json.dumps({**ROW, "choices": ["x"] * 27}).encode(), "27 choices"],
        }
    ),
)  # fmt: skip
def test_a_broken_line_is_named_by_its_number(train, here, letters, content, word):
    letters.write_bytes(content)
    refused(train(), here, "letters.jsonl", word)


def test_a_prompt_of_10_mb_is_refused(train, here, letters):
    splits = ["fit", "fit", "select", "test"]
    rows = [{"prompt": f"say {i}", "split": splits[i % 4]} for i in range(40)]
    rows[0] |= {"id": "long", "prompt": "ab " * (10**7 // 3)}
    letters.write_text("\n".join(map(json.dumps, rows)))
    refused(train(), here, "'long'", "tokens")


@pytest.mark.parametrize("end", ["\r\n", "\n\n", "\n \t\n"])
def test_other_line_ends_are_fine(train, here, letters, end):
    """Fallback: they are read as if they were plain ones."""
    letters.write_bytes(letters.read_bytes().replace(b"\n", end.encode()))
    code, _, err = train()
    assert code == 0, err


def test_odd_texts_that_are_texts_are_fine(train, here, letters):
    """Fallback: NUL, line separators, pairs of surrogates and marks of direction are read."""
    odd = ["\\u0000", "\u2028", "\\ud83d\\ude00", "\u202e", "\ufeff", "\\u001b[31m"]
    rows = letters.read_text().splitlines()
    rows += [f'{{"prompt": "say {text}", "target": "x"}}' for text in odd]
    letters.write_text("\n".join(rows), encoding="utf-8")
    code, _, err = train()
    assert code == 0, err


def test_a_task_that_is_a_folder_is_refused(train, here, tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    refused(train(task=tmp_path / "folder.jsonl"), here, "cannot read")


# --- what never ends, or never answers ---


def without_end(path, kind):
    """Put a pipe or a device in a file's place."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["pipe", "endless"])
@pytest.mark.parametrize("what", ["task", "guard", "sae", "model", "data", "collected"])
def test_what_has_no_end_is_not_read(train, here, letters, tmp_path, hub, run, what, kind):
    for folder in ("saes", "model"):
        shutil.copytree(hub / folder, tmp_path / folder)
    (tmp_path / "data").mkdir()
    files = {
        "task": [letters],
        "guard": [tmp_path / "guard.jsonl"],
        "sae": [
            tmp_path / "saes/layer_0" / name for name in ("cfg.json", "sae_weights.safetensors")
        ],
        "model": [tmp_path / "model" / name for name in ("config.json", "model.safetensors")],
        "data": [tmp_path / "data" / "test.jsonl"],
        "collected": [run / "statistics.safetensors"],
    }
    named = {
        "sae": tmp_path / "saes",
        "model": tmp_path / "model",
        "data": tmp_path / "data",
        "collected": run,
    }
    for path in files[what]:
        kept = path.read_bytes() if path.exists() else b""
        without_end(path, kind)
        more = {"task": "simpleqa", "scorer": None, "guard": "none"} if what == "data" else {}
        refused(train(**{what: named.get(what, path)} | more), here, path.name)
        path.unlink()
        path.write_bytes(kept)


# --- benchmarks from a local copy ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "word"),
    cases(
        {
            "no file": ["readme.txt", b"hello", "holds no rows"],
            "an empty table": ["test.parquet", b"", "cannot read"],
            "a table of one byte": ["test.parquet", b"P", "cannot read"],
            "a table of marks": ["test.parquet", b"PAR1" * 3, "cannot read"],
            "a table with a long footer": [
                "test.parquet",
                b"PAR1" + b"\0" * 20 + b"\xff\xff\xff\x7fPAR1",
                "cannot read",
            ],
            "a table that is a pickle": ["test.parquet", pickle.dumps([1]), "cannot read"],
            "JSON that is broken": ["test.jsonl", b"{oops", "cannot read"],
            "JSON that is nested": ["test.jsonl", b"[" * DEEP, "cannot read"],
            "JSON without a column": ["test.jsonl", b'{"a": 1}\n', "has no column"],
            "JSON of other values": [
                "test.jsonl",
                b'{"problem": 1, "answer": 2, "metadata": null}\n',
                "problem",
            ],
            "CSV of one column": ["test.csv", b"a\n1\n", "has no column"],
            "CSV that is not UTF-8": ["test.csv", b"problem,answer\n\xff,\xfe\n", "cannot read"],
        }
    ),
)
def test_a_local_copy_that_lies_is_refused(train, here, tmp_path, monkeypatch, name, content, word):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / name).write_bytes(content)
    refused(train(task="simpleqa", data=tmp_path / "copy", scorer=None, guard="none"), here, word)


# --- SAEs ------------------------------------------------------------------------------------


@pytest.fixture
def saes(tmp_path):
    """A folder of one SAE, of layer 1."""
    write_sae(tmp_path / "saes" / "one", 1, seed=1)
    return tmp_path / "saes"


def weight(name, value):
    """A change of one tensor of the SAE: in its place, or its first value."""

    def apply(folder):
        path = folder / "sae_weights.safetensors"
        found = load_file(path)
        if value is None:
            del found[name]
        elif isinstance(value, torch.Tensor):
            found[name] = value
        else:
            found[name].view(-1)[0] = value
        save_file(found, path)

    return apply


def configured(**values):
    return lambda folder: edit(folder / "cfg.json", lambda document: document.update(values))


def content(name, data):
    return lambda folder: (folder / name).write_bytes(data)


@pytest.mark.parametrize(
    ("change", "word"),
    cases(
        {
            **{
                f"{value} in {name}": [weight(name, value), "NaN or infinity"]
                for name in ("W_enc", "b_enc", "threshold")
                for value in (float("nan"), float("inf"))
            },
            "one tensor missing": [weight("W_enc", None), "cannot be loaded"],
            "one tensor turned": [weight("W_enc", torch.zeros(D_SAE, D_MODEL)), "cannot be loaded"],
            "no weights": [lambda f: (f / "sae_weights.safetensors").unlink(), "cannot be loaded"],
            "weights of nothing": [content("sae_weights.safetensors", b""), "cannot be loaded"],
            "weights that lie": [
                content("sae_weights.safetensors", tensors(entry(), length=2**63)),
                "cannot be loaded"],
            "weights that are a pickle": [
                content("sae_weights.safetensors", pickle.dumps({"W_enc": 1})), "cannot be loaded"],
            "fewer latents than said": [configured(d_sae=D_SAE + 1), "cannot be loaded"],
            "latents beyond memory": [configured(d_sae=10**12), "cannot be loaded"],
            "latents below zero": [configured(d_sae=-1), "cannot be loaded"],
            "latents in words": [configured(d_sae="many"), "cannot be loaded"],
            "of another width": [configured(d_in=7), "d_in 7"],
            "of a width in words": [configured(d_in="16"), "d_in 16"],
            "of no architecture": [configured(architecture="evil"), "cannot be loaded"],
            "normalising": [
                configured(normalize_activations="expected_average_only_in"), "normalises"],
            "metadata a list": [configured(metadata=["hook_name"]), "metadata"],
            "metadata a text": [configured(metadata="blocks.1"), "metadata"],
            "metadata a number": [configured(metadata=1), "metadata"],
            "no place": [configured(metadata={}), "hook_name"],
            "a place in numbers": [configured(metadata={"hook_name": 1}), "hook_name"],
            "another place": [configured(metadata={"hook_name": "../x"}), "hook point"],
            "a later layer": [
                configured(metadata={"hook_name": "blocks.99999.hook_resid_post"}), "layer 99999"],
            "cfg of nothing": [content("cfg.json", b""), "cfg.json cannot be read"],
            "cfg a list": [content("cfg.json", b"[]"), "cfg.json cannot be read"],
            "cfg nested": [content("cfg.json", b"[" * DEEP), "cfg.json cannot be read"],
            "cfg in UTF-16": [content("cfg.json", "{}".encode("utf-16")), "cannot be read"],
            "cfg a number of 5,000 digits": [
                content("cfg.json", b'{"d_in": ' + b"9" * 5000 + b"}"), "cannot be read"],
        }
    ),
)  # fmt: skip
def test_an_sae_that_cannot_be_is_refused(train, here, saes, change, word):
    change(saes / "one")
    refused(train(sae=saes), here, word)


def test_nan_in_the_decoder_is_refused(train, here, saes):
    weight("W_dec", torch.full((D_SAE, D_MODEL), torch.nan))(saes / "one")
    refused(train(sae=saes), here, "NaN or infinity")


def test_an_empty_folder_of_saes_is_refused(train, here, tmp_path):
    (tmp_path / "none").mkdir()
    refused(train(sae=tmp_path / "none"), here, "no SAE in")


# --- models and tokenizers -----------------------------------------------------------------------


@pytest.fixture
def model(hub, tmp_path):
    """A copy of the tiny model."""
    return shutil.copytree(hub / "model", tmp_path / "model")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_from_the_model_in_one_sample_is_refused(train, here, model, letters, value):
    weights = load_file(model / "model.safetensors")
    token = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]["Z"]
    name = next(name for name in weights if "embed_tokens" in name)
    weights[name][token] = value
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    rows = [json.dumps({"prompt": f"say {i}", "split": "fit"}) for i in range(20)]
    rows += [json.dumps({"prompt": "say Z", "split": "fit"})]
    for split in ("select", "test"):
        rows += [json.dumps({"prompt": f"{split} {i}", "split": split}) for i in range(9)]
    letters.write_text("\n".join(rows))
    refused(train(model=model), here, "NaN", "--dtype float32")


def test_a_tokenizer_without_bos_is_fine(train, here, model):
    """Fallback: prompts begin with their first token, as the tokenizer gives them."""
    edit(model / "tokenizer_config.json", lambda d: d.pop("bos_token") and None)
    edit(model / "tokenizer.json", field("post_processor", value=None))
    code, _, err = train(model=model)
    assert code == 0, err


def larger_vocabulary(model):
    edit(model / "tokenizer.json", field("model", "vocab", "s", value=5000))


@pytest.mark.parametrize(
    ("change", "word"),
    cases(
        {
            "no files": [lambda m: [path.unlink() for path in m.iterdir()], "cannot be loaded"],
            "no weights": [lambda m: (m / "model.safetensors").unlink(), "cannot be loaded"],
            "weights cut": [content("model.safetensors", b"\0" * 20), "cannot be loaded"],
            "weights that lie": [
                content("model.safetensors", tensors(entry(), length=2**63)),
                "cannot be loaded",
            ],
            "config of nothing": [content("config.json", b""), "cannot be loaded"],
            "config nested": [content("config.json", b"[" * DEEP), "cannot be loaded"],
            "config a list": [content("config.json", b"[]"), "cannot be loaded"],
            "no architecture": [content("config.json", b"{}"), "cannot be loaded"],
            "another width": [
                lambda m: edit(m / "config.json", field("hidden_size", value=24)),
                "model",
            ],
            "layers below zero": [
                lambda m: edit(m / "config.json", field("num_hidden_layers", value=-1)),
                "",
            ],
            "tokenizer of nothing": [content("tokenizer.json", b""), "cannot be loaded"],
            "tokenizer nested": [content("tokenizer.json", b"[" * DEEP), "cannot be loaded"],
            "tokens beyond the embedding": [larger_vocabulary, "tokens"],
        }
    ),
)
def test_a_model_that_cannot_be_is_refused(train, here, model, change, word):
    change(model)
    refused(train(model=model), here, word)


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin", "model.pt"])
def test_a_pickled_model_is_refused_and_not_run(train, here, model, name):
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Bomb(here / "owned")))
    refused(train(model=model), here, "cannot be loaded")


def test_a_models_own_code_is_not_run(train, here, model):
    code = f"open({str(here / 'owned')!r}, 'w')\nclass M: pass\n"
    (model / "evil.py").write_text(code)
    own = {"AutoConfig": "evil.M", "AutoModelForCausalLM": "evil.M"}
    edit(model / "config.json", lambda d: d.update(auto_map=own, model_type="evil"))
    refused(train(model=model), here, "cannot be loaded")


# --- scorers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "word"),
    cases(
        {
            "NaN": ["return float('nan')", "gave nan"],
            "infinity": ["return float('inf')", "gave inf"],
            "below zero": ["return -0.1", "gave -0.1"],
            "beyond any float": ["return 10**400", "from 0 to 1"],
            "a list": ["return [1]", "gave [1]"],
            "a long text": ["return 'x' * 10**7", "from 0 to 1"],
            "a complex number": ["return 1j", "gave 1j"],
            "an object that cannot be shown": [
                "return type('X', (), {'__repr__': lambda self: 1/0})()", "from 0 to 1"],
            "an error": ["raise KeyError('q')", "raised KeyError"],
            "an error of many lines": ["raise ValueError('a\\n' * 10**6)", "raised ValueError"],
            "an error that cannot be shown": [
                "raise type('X', (Exception,), {'__str__': lambda self: 1/0})()", "raised X"],
            "no end": ["return judge(reply, sample)", "raised RecursionError"],
            "leaving": ["import sys; sys.exit(0)", "raised SystemExit"],
            "nothing judged": ["return None", "judged"],
            "too many arguments": ["return judge(1, 2, 3)", "raised TypeError"],
        }
    ),
)  # fmt: skip
def test_a_scorer_that_returns_nonsense_is_refused(
    train, here, tmp_path, monkeypatch, request, body, word
):
    name = f"scorer_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(f"def judge(reply, sample):\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    refused(train(scorer=f"{name}:judge"), here, word)


@pytest.mark.parametrize(
    "source",
    cases(
        {
            "a fault": ["1 / 0"],
            "leaving": ["import sys; sys.exit(0)"],
            "no Python": ["def judge(:"],
            "NUL": ["\0"],
            "no function": ["judge = 5"],
            "nothing": [""],
            "a module that is missing": ["import no_such_module_at_all"],
        }
    ),
)
def test_a_scorer_that_cannot_be_imported_is_refused(
    train, here, tmp_path, monkeypatch, request, source
):
    name = f"module_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    refused(train(scorer=f"{name}:judge"), here, "--scorer")


@pytest.mark.parametrize(
    "spec",
    [":", ":judge", "json:", "..json:loads", "a b:c", "json:loads.x", "/etc/passwd:x", "",
     "regex:[", "regex:a{99999999999}", "regex:" + "(" * 5000 + ")" * 5000],
    ids=lambda spec: spec[:20] or "nothing",
)  # fmt: skip
def test_a_scorer_of_no_name_is_refused(train, here, spec):
    refused(train(scorer=spec), here, "scorer")


# --- names ---------------------------------------------------------------------------------------


LONG = {"long": "a" * 5000, "deep": "a/" * 3000}
ODD = LONG | {"NUL": "a\0b", "half a pair": "\ud800", "nothing": ""}
NAMES = [
    pytest.param(option, name, id=f"{option}: {kind}")
    for option in ("model", "sae", "task", "out", "scorer", "guard")
    for kind, name in (LONG if option == "out" else ODD).items()
]


@pytest.mark.parametrize(("option", "name"), NAMES)
def test_a_name_that_no_file_can_have_is_refused(train, here, option, name):
    refused(train(**{option: name}), here)


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "\ud800", ""])
@pytest.mark.parametrize("command", ["report", "select", "eval"])
def test_a_run_that_no_file_can_be_is_refused(call, here, command, name):
    refused(call(command, name), here)


def one_text(column):
    """Equal texts of all rows, which Parquet writes once."""
    return lambda columns: columns.update({column: ["x" * 10**6] * len(columns["id"])})


def many_rows(columns):
    columns.update({name: values[:1] * 50_000 for name, values in columns.items()})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("predictions.parquet", one_text("steered_text"), id="long replies"),
        pytest.param("predictions.parquet", many_rows, id="many predictions"),
        pytest.param("outcomes.parquet", one_text("id"), id="long ids"),
        pytest.param("outcomes.parquet", many_rows, id="many outcomes"),
    ],
)
def test_what_would_fill_the_memory_is_refused(run, monkeypatch, name, change):
    table(name, change)(run)
    assert (run / name).stat().st_size < 10**6
    monkeypatch.setattr(parquet_rows, "MOST_BYTES", 10**7)
    with pytest.raises(ArtifactError, match=rf"{name} holds more than .* GiB"):
        cs.load_run(run)
