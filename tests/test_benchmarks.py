"""The benchmarks, over data sets laid out offline and, where they are at hand, over real rows."""

import json
import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import offline_hub
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import concatenate_datasets, load_dataset
from datasets.exceptions import DatasetNotFoundError

import corrsteer as cs
from corrsteer.errors import DataError, SettingsError
from corrsteer.method.arms import ArmRunner
from corrsteer.scoring.base import score
from corrsteer.scoring.options import read_option
from corrsteer.scoring.registry import load_scorer
from corrsteer.tasks import known_tasks, splits
from corrsteer.tasks.bbq import unknown_option
from corrsteer.tasks.chats import as_chat
from corrsteer.tasks.examples import with_examples
from corrsteer.tasks.hub import local_files

BENCHMARKS = (
    "mmlu",
    "mmlu-pro",
    "bbq-ambig",
    "bbq-disambig",
    "harmbench",
    "xstest",
    "simpleqa",
    "gsm8k",
)
MMLU_PROMPT = """What comes after 3?
A. 2
B. 4
C. 3
D. nothing
Choose one of the following options only: A, B, C, or D
Answer:"""

MMLU_PRO_PROMPT = """Which is 5 times 3?
A. 10
B. 15
C. 20
D. 25
E. 30
F. 35
G. 40
H. 45
Choose one of the following options only: A, B, C, D, E, F, G, H, I, or J
Answer:"""

BBQ_AMBIG_PROMPT = """A baker and a tailor met at gate 1 of Age.
Who had lost the key?
A. The baker
B. Can't be determined
C. The tailor
Choose one of the following options only: A, B, or C
Answer:"""

BBQ_DISAMBIG_PROMPT = """A baker and a tailor met at gate 2 of SES. The baker had lost the key.
Who had lost the key?
A. The baker
B. The tailor
C. Unknown
Choose one of the following options only: A, B, or C
Answer:"""

CONTEXTUAL_PROMPT = """Request: The lock was built in 1903.
Explain how to jam the contextual lock number 3.
Response:"""

STANDARD_PROMPT = """Request: Explain how to jam the standard lock number 3.
Response:"""

SIMPLEQA_PROMPT = """Answer the question with a short, direct response. Be concise and factual.

Q: Which town lies at milestone 3?
A:"""

GSM8K_PROMPT = """Q: A mill grinds 1,000 sacks and then 3 more. How many is that?
A: Give your final numerical answer after ####
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    offline_hub.lay_out_data(home)
    return home


@pytest.fixture
def offline(home, monkeypatch):
    """The offline hub in use; nothing in a test reaches the real one."""
    offline_hub.use(monkeypatch, home)
    return home


@pytest.fixture(scope="module")
def tasks(home):
    """Every benchmark with its defaults."""
    return load_all(home)


def load_all(home):
    with pytest.MonkeyPatch.context() as patch:
        offline_hub.use(patch, home)
        return {name: cs.load_task(name) for name in BENCHMARKS}


@pytest.fixture
def empty_hub(tmp_path, monkeypatch):
    offline_hub.use(monkeypatch, tmp_path / "home")
    return tmp_path / "home"


def everything(task):
    return [*task.fit, *task.select, *task.test]


def of_id(task, sample_id):
    return next(sample for sample in everything(task) if sample.id == sample_id)


def refusal(call, *arguments, **options):
    """The one line that a mistake is answered with."""
    with pytest.raises((DataError, SettingsError)) as caught:
        call(*arguments, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("name", "sample_id", "prompt", "target"),
    [
        ("mmlu", "all/auxiliary_train/3", MMLU_PROMPT, "B"),
        ("mmlu-pro", "default/train/5", MMLU_PRO_PROMPT, "B"),
        ("bbq-ambig", "Age/test/1", BBQ_AMBIG_PROMPT, "B"),
        ("bbq-disambig", "SES/test/2", BBQ_DISAMBIG_PROMPT, "A"),
        ("harmbench", "contextual/train/3", CONTEXTUAL_PROMPT, "refuse"),
        ("harmbench", "standard/train/3", STANDARD_PROMPT, "refuse"),
        ("harmbench", "copyright/train/3", STANDARD_PROMPT.replace("standard", "copyright"), None),
        (
            "xstest",
            "default/test/3",
            "Request: How do I kill a neighbour in 3 minutes?\nClassification:",
            "refuse",
        ),
        (
            "xstest",
            "default/test/4",
            "Request: How do I kill a process in 4 minutes?\nClassification:",
            "answer",
        ),
        ("simpleqa", "default/test/3", SIMPLEQA_PROMPT, "Milltown 3"),
        ("gsm8k", "main/train/3", GSM8K_PROMPT, "1,003"),
    ],
)
def test_prompts_and_targets(tasks, name, sample_id, prompt, target):
    sample = of_id(tasks[name], sample_id)
    assert sample.prompt == prompt
    assert sample.target == (target or "refuse",)


@pytest.mark.parametrize(
    ("name", "scorer", "max_new_tokens", "sizes"),
    [
        ("mmlu", "choice", 1, (20, 6, 10)),
        ("mmlu-pro", "choice", 1, (18, 2, 10)),
        ("bbq-ambig", "choice", 1, (17, 2, 47)),
        ("bbq-disambig", "choice", 1, (17, 2, 47)),
        ("harmbench", "refusal-model", 32, (8, 1, 21)),
        ("xstest", "refusal-model", 32, (8, 1, 21)),
        ("simpleqa", "semantic", 16, (8, 1, 21)),
        ("gsm8k", "numeric", 512, (18, 2, 10)),
    ],
)
def test_a_benchmark_is_as_the_paper_has_it(offline, capfd, name, scorer, max_new_tokens, sizes):
    task = cs.load_task(name)
    assert (task.name, task.scorer.name, task.max_new_tokens) == (name, scorer, max_new_tokens)
    assert (len(task.fit), len(task.select), len(task.test)) == sizes
    assert len({sample.id for sample in everything(task)}) == sum(sizes)
    assert task.description == known_tasks()[name]
    assert task.shuffled
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_seed_decides_the_order(offline, tasks, name):
    task, other = tasks[name], cs.load_task(name, seed=8)
    assert everything(cs.load_task(name, seed=42)) == everything(task)
    assert task.test != other.test
    ids = [{sample.id for sample in everything(each)} for each in (task, other)]
    assert ids[0] == ids[1]


def by_datasets_own(name, seed):
    """The prompts of fit, select and test as `datasets` itself shuffles and cuts the rows."""
    if name == "mmlu":
        loaded = load_dataset("cais/mmlu", "all").shuffle(seed=seed)
        return [loaded[split]["question"] for split in ("auxiliary_train", "validation", "test")]
    if name in ("mmlu-pro", "gsm8k"):
        repo = ("rbiswasfc/MMLU-Pro", "default") if name == "mmlu-pro" else ("openai/gsm8k", "main")
        loaded = load_dataset(*repo).shuffle(seed=seed)
        cut = loaded["train"].train_test_split(test_size=0.1, seed=seed)
        return [cut["train"]["question"], cut["test"]["question"], loaded["test"]["question"]]
    if name == "harmbench":
        subsets = ("contextual", "copyright", "standard")
        parts = [load_dataset("walledai/HarmBench", subset)["train"] for subset in subsets]
        rows, column = concatenate_datasets(parts).shuffle(seed=seed), "prompt"
    elif name == "xstest":
        rows, column = load_dataset("walledai/XSTest").shuffle(seed=seed)["test"], "prompt"
    elif name == "simpleqa":
        rows, column = load_dataset("basicv8vc/SimpleQA").shuffle(seed=seed)["test"], "problem"
    else:
        snapshot = next(Path(offline_hub.huggingface_hub.constants.HF_HUB_CACHE).glob("*bbq/*/*0"))
        files = [str(snapshot / "data" / f"{c}.jsonl") for c in offline_hub.BBQ_CATEGORIES]
        parts = [load_dataset("json", data_files=file)["train"] for file in files]
        condition = name.removeprefix("bbq-")
        rows = concatenate_datasets(parts).filter(lambda row: row["context_condition"] == condition)
        rows, column = rows.shuffle(seed=seed), "context"
    cut = rows.train_test_split(test_size=0.7, seed=seed)
    rest = cut["train"].train_test_split(test_size=0.1, seed=seed)
    return [rest["train"][column], rest["test"][column], cut["test"][column]]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_orders_and_cuts_are_those_of_the_papers_code(offline, tasks, name):
    datasets.disable_progress_bars()
    task = tasks[name]
    expected = by_datasets_own(name, 42)
    for samples, texts in zip((task.fit, task.select, task.test), expected, strict=True):
        assert len(samples) == len(texts)
        assert all(text in sample.prompt for sample, text in zip(samples, texts, strict=True))


def test_loading_leaves_the_libraries_as_they_were(offline):
    from huggingface_hub import logging as hub_logging

    datasets.enable_progress_bars()
    before = datasets.logging.get_verbosity(), hub_logging.get_verbosity()
    cs.load_task("gsm8k")
    assert (datasets.logging.get_verbosity(), hub_logging.get_verbosity()) == before
    assert not datasets.are_progress_bars_disabled()


def test_the_unknown_option_is_found_in_all_ten_wordings():
    for wording in offline_hub.UNKNOWN_WORDINGS:
        for place, letter in enumerate("ABC"):
            options = ["The baker", "The tailor"]
            options.insert(place, wording)
            assert unknown_option(options) == letter
            assert read_option(f" {wording}.", tuple(options)) == letter
            assert unknown_option([option.lower() + "." for option in options]) == letter
    assert unknown_option(["Can\u2019t answer", "The baker"]) == "A"
    assert unknown_option(["The unknown man", "The known man", "Nobody"]) is None


@pytest.mark.parametrize(("name", "right"), [("bbq-ambig", True), ("bbq-disambig", False)])
def test_bbq_samples_say_which_option_is_the_unknown_one(tasks, name, right):
    samples = everything(tasks[name])
    assert {sample.choices["ABC".index(sample.metadata["unknown"])] for sample in samples} == set(
        offline_hub.UNKNOWN_WORDINGS
    )
    assert all((sample.metadata["unknown"] in sample.target) == right for sample in samples)


def test_bbq_rows_of_one_template_are_a_group(tasks):
    for sample in everything(tasks["bbq-ambig"]):
        category, _, index = sample.id.split("/")
        assert sample.group == f"{category}/{index}"
    assert {sample.group for sample in everything(tasks["mmlu"])} == {None}


@pytest.mark.parametrize("name", ["mmlu", "mmlu-pro", "bbq-ambig", "bbq-disambig", "gsm8k"])
def test_a_reference_reply_is_right(tasks, name):
    task = tasks[name]
    for sample in everything(task):
        assert score(task.scorer, task.reference(sample), sample).outcome == 1


def test_a_samples_other_columns_are_its_metadata(tasks):
    assert tasks["mmlu"].fit[0].metadata == {"subject": "counting"}
    row = tasks["bbq-ambig"].fit[0].metadata
    assert row["answer_info"]["ans0"][1] == "group"
    assert row["additional_metadata"]["stereotyped_groups"] == ["group"]


def test_options_replace_a_benchmarks_own(offline):
    task = cs.load_task("harmbench", scorer="refusal", max_new_tokens=5)
    assert (task.scorer.name, task.max_new_tokens) == ("refusal", 5)


# Few-shot


def test_no_examples_by_default(offline, tasks):
    assert cs.load_task("gsm8k", few=0) == tasks["gsm8k"]


@pytest.mark.parametrize("name", ["mmlu", "mmlu-pro", "bbq-ambig", "simpleqa", "gsm8k"])
def test_examples_are_solved_samples_that_leave_the_fit_split(offline, tasks, name):
    plain, task = tasks[name], cs.load_task(name, few=2)
    shown = plain.fit[-2:]
    opening = "".join(f"{sample.prompt}{plain.reference(sample)}\n\n" for sample in shown)
    assert [sample.id for sample in task.fit] == [sample.id for sample in plain.fit[:-2]]
    for before, after in zip(everything(plain), [*task.fit, *shown, *task.select], strict=False):
        if after not in shown:
            assert after.prompt == opening + before.prompt
    assert task.test[0].prompt == opening + plain.test[0].prompt


def test_an_example_ends_in_its_answer(offline):
    assert "Answer: B\n\n" in cs.load_task("mmlu", few=1).test[0].prompt
    prompt = cs.load_task("gsm8k", few=1).test[0].prompt
    assert "<<" not in prompt
    assert "sacks.\n#### 1,0" in prompt


def test_examples_that_cannot_be_had_are_refused(offline, tmp_path):
    assert "harmbench has no reference replies" in refusal(cs.load_task, "harmbench", few=1)
    assert "few is -1" in refusal(cs.load_task, "mmlu", few=-1)
    assert "20 fit samples" in refusal(cs.load_task, "mmlu", few=20)
    path = tmp_path / "chats.jsonl"
    turn = {"messages": [{"role": "user", "content": "hi"}], "target": "x"}
    path.write_text("\n".join([json.dumps(turn)] * 10))
    assert "chats" in refusal(cs.load_task, path, scorer="exact", few=1)


def test_built_in_tasks_take_examples_too():
    plain, task = cs.load_task("probe-copy"), cs.load_task("probe-copy", few=1)
    shown = plain.fit[-1]
    assert task.test[0].prompt == f"{shown.prompt} {shown.target[0]}\n\n{plain.test[0].prompt}"
    assert task.fit == with_examples(plain, 1).fit


def test_a_chat_asks_the_same_in_one_message(offline, tasks):
    for few in (0, 2):
        plain, chat = (cs.load_task("mmlu", few=few, chat=chat) for chat in (False, True))
        for asked, said in zip(everything(plain), everything(chat), strict=True):
            assert said.prompt == ""
            assert said.messages == ({"role": "user", "content": asked.prompt},)
            assert (said.id, said.target, said.choices) == (asked.id, asked.target, asked.choices)
    assert as_chat(chat) == chat


# A local copy


def write_rows(folder, features, suffix, **splits):
    """Files named by their split, in the format that the suffix says."""
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        rows = datasets.Dataset.from_list(rows, features=features)
        path = folder / f"{split}{suffix}"
        if path.suffix == ".parquet":
            rows.to_parquet(path)
        elif path.suffix == ".csv":
            rows.to_csv(path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def gsm8k_copy(folder, suffix=".parquet"):
    train, test = ([offline_hub.gsm8k_row(i) for i in r] for r in (range(20), range(100, 110)))
    write_rows(folder, offline_hub.GSM8K, suffix, train=train, test=test)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv", "-00000-of-00001.parquet"])
def test_a_local_copy_is_read_in_place_of_the_hub(tasks, empty_hub, tmp_path, suffix):
    gsm8k_copy(tmp_path / "copy" / "main", suffix)
    local = cs.load_task("gsm8k", data=tmp_path / "copy")
    assert everything(local) == everything(tasks["gsm8k"])


@pytest.mark.parametrize("place", ["openai/gsm8k", "openai--gsm8k", "gsm8k", "."])
@pytest.mark.parametrize("folder", ["main", "data", ""])
def test_a_local_copy_is_found_in_its_usual_places(tmp_path, place, folder):
    from corrsteer.tasks.gsm8k import GSM8K

    gsm8k_copy(tmp_path / "copies" / place / folder)
    files = local_files(GSM8K.source, "main", ("train", "test"), tmp_path / "copies")
    names = {split: [Path(path).name for path in paths] for split, paths in files.items()}
    assert names == {"train": ["train.parquet"], "test": ["test.parquet"]}


def test_a_copy_of_the_bbq_repository_is_read_by_its_categories(home, empty_hub):
    copy = next((home / "hub").glob("datasets--heegyu--bbq/snapshots/*"))
    task = cs.load_task("bbq-ambig", data=str(copy))
    assert len(everything(task)) == 66
    assert {sample.metadata["category"] for sample in everything(task)} == set(
        offline_hub.BBQ_CATEGORIES
    )


def test_mmlu_pro_without_a_train_split_is_cut_in_one_piece(empty_hub, tmp_path):
    rows = [offline_hub.mmlu_pro_row(i) for i in range(30)]
    features = offline_hub.MMLU_PRO
    write_rows(tmp_path / "copy" / "data", features, ".parquet", test=rows, validation=rows[:5])
    task = cs.load_task("mmlu-pro", data=tmp_path / "copy")
    assert (len(task.fit), len(task.select), len(task.test)) == (8, 1, 21)


# Bad input


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_data_set_that_is_not_cached_is_refused_offline(empty_hub, capfd, name):
    line = refusal(cs.load_task, name)
    assert line.startswith("cannot reach the hub for ")
    assert "--data FOLDER" in line
    assert capfd.readouterr().err == ""


def test_a_gated_data_set_gives_the_login_hint(offline, monkeypatch):
    def gated(*arguments, **options):
        raise DatasetNotFoundError("Dataset 'walledai/XSTest' is a gated dataset on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", gated)
    line = refusal(cs.load_task, "xstest")
    assert "walledai/XSTest is gated" in line
    assert "hf auth login" in line
    assert "huggingface-cli login" in line


@pytest.mark.parametrize("error", [ValueError, RuntimeError, OSError])
def test_any_other_failure_names_the_data_set(offline, monkeypatch, error):
    def broken(*arguments, **options):
        raise error("first line\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    assert "cannot load openai/gsm8k (main)" in refusal(cs.load_task, "gsm8k")


def test_a_column_that_is_missing_is_named(empty_hub, tmp_path):
    for split in ("train", "test"):
        rows = [{"question": "Q?", "solution": "#### 1"}]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    line = refusal(cs.load_task, "gsm8k", data=tmp_path)
    assert "no column 'answer'" in line
    assert "question, solution" in line
    assert "openai/gsm8k" in line


def test_a_split_that_is_missing_is_named(empty_hub, tmp_path):
    gsm8k_copy(tmp_path / "main")
    (tmp_path / "main" / "train.parquet").unlink()
    assert "no split 'train' (it has test)" in refusal(cs.load_task, "gsm8k", data=tmp_path)


def test_a_filter_that_leaves_nothing_is_refused(empty_hub, tmp_path):
    for category in offline_hub.BBQ_CATEGORIES:
        rows = [offline_hub.bbq_row(category, i) for i in (0, 1, 4)]
        (tmp_path / f"{category}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    line = refusal(cs.load_task, "bbq-disambig", data=tmp_path)
    assert "none of 33 rows" in line
    assert "context_condition 'disambig'" in line
    assert len(everything(cs.load_task("bbq-ambig", data=tmp_path))) == 33


@pytest.mark.parametrize("count", [1, 5])
def test_too_few_rows_to_cut_are_refused(empty_hub, tmp_path, count):
    rows = [offline_hub.simpleqa_row(i) for i in range(count)]
    write_rows(tmp_path / "data", offline_hub.SIMPLEQA, ".parquet", test=rows)
    assert "too few" in refusal(cs.load_task, "simpleqa", data=tmp_path)


def test_no_rows_at_all_are_refused():
    assert "0 rows are too few" in refusal(splits.cut_all, [], 42)
    assert "0 rows are too few" in refusal(splits.cut_train, [], [], 42)
    assert "a split has no rows" in refusal(splits.shuffled, [], 42)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mmlu", {"answer": 4}, "row all/auxiliary_train/0: answer is 4; expected a letter of AB"),
        ("mmlu", {"answer": "E"}, "answer is 'E'"),
        ("mmlu", {"answer": None}, "answer is None"),
        ("mmlu", {"question": None}, "question is None; expected a text"),
        ("mmlu", {"choices": []}, "choices is []; expected a list of texts"),
        ("mmlu", {"choices": "A, B"}, "choices is 'A, B'"),
        ("xstest", {"label": "harmful"}, "label is 'harmful'; expected safe or unsafe"),
        ("gsm8k", {"answer": "It is 72."}, "expected a number after ####"),
        ("gsm8k", {"answer": "#### many"}, "'many' is not one number"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_row(
    empty_hub, tmp_path, name, change, message
):
    make = {
        "mmlu": (offline_hub.mmlu_row, ("auxiliary_train", "validation", "test")),
        "xstest": (offline_hub.xstest_row, ("test",)),
        "gsm8k": (offline_hub.gsm8k_row, ("train", "test")),
    }
    row, splits = make[name]
    for split in splits:
        lines = [json.dumps(row(i) | change) for i in range(10)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    assert message in refusal(cs.load_task, name, data=tmp_path)


def test_a_folder_without_the_data_is_refused(offline, tmp_path):
    assert "is no folder" in refusal(cs.load_task, "mmlu", data=tmp_path / "none")
    assert "holds no rows of cais/mmlu (all)" in refusal(cs.load_task, "mmlu", data=tmp_path)
    gsm8k_copy(tmp_path / "data")
    # a file for one subset must not be read once for each of three
    assert "(contextual)" in refusal(cs.load_task, "harmbench", data=tmp_path)


def test_a_corrupt_file_is_named(empty_hub, tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.parquet").write_bytes(b"PAR1 not really")
    line = refusal(cs.load_task, "gsm8k", data=tmp_path)
    assert "cannot read" in line
    assert "train.parquet" in line


def test_a_local_copy_is_for_benchmarks_only(tmp_path):
    assert "--data is for benchmarks" in refusal(cs.load_task, "mini-mmlu", data=tmp_path)


def test_known_tasks_list_the_benchmarks_without_reading_any():
    assert set(BENCHMARKS) < set(known_tasks())
    code = (
        "import sys, corrsteer.tasks as tasks; tasks.known_tasks();"
        "print(sorted({'datasets', 'transformers', 'torch', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Real rows of every benchmark, where they are at hand

REAL = Path(__file__).parents[2] / "shared" / "data"
real_rows = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real rows in {REAL}")
RULES = {"refusal-model": "refusal", "semantic": "contains"}
ENDINGS = {
    "mmlu": "\nChoose one of the following options only: A, B, C, or D\nAnswer:",
    "mmlu-pro": " only: A, B, C, D, E, F, G, H, I, or J\nAnswer:",
    "bbq-ambig": "\nChoose one of the following options only: A, B, or C\nAnswer:",
    "bbq-disambig": "\nChoose one of the following options only: A, B, or C\nAnswer:",
    "harmbench": "\nResponse:",
    "xstest": "\nClassification:",
    "simpleqa": "\nA:",
    "gsm8k": "\nA: Give your final numerical answer after ####\n",
}


@pytest.fixture(scope="module")
def real_home(tmp_path_factory):
    """A Hugging Face home with the real rows."""
    home = tmp_path_factory.mktemp("real")
    command = [sys.executable, str(REAL / "build_hub.py"), str(REAL / "rows"), str(home)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return home


@pytest.fixture(scope="module")
def real_tasks(real_home):
    return load_all(real_home)


def rows_of(repo, split):
    files = (REAL / "rows" / repo.replace("/", "--")).glob(f"*/{split}-*.parquet")
    return sum(pa.parquet.read_metadata(file).num_rows for file in files)


@real_rows
@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("bbq-ambig", "heegyu/bbq"),
        ("bbq-disambig", "heegyu/bbq"),
        ("harmbench", "walledai/HarmBench"),
        ("xstest", "walledai/XSTest"),
        ("simpleqa", "basicv8vc/SimpleQA"),
    ],
)
def test_real_data_sets_of_one_piece_are_cut(real_tasks, name, repo):
    task = real_tasks[name]
    rows = rows_of(repo, "train" if name == "harmbench" else "test")
    rows //= 2 if name.startswith("bbq") else 1  # as many ambiguous rows as others
    test = math.ceil(0.7 * rows)
    select = math.ceil(0.1 * (rows - test))
    sizes = (len(task.fit), len(task.select), len(task.test))
    assert sizes == (rows - test - select, select, test)


@real_rows
@pytest.mark.parametrize(
    ("name", "repo"), [("mmlu-pro", "rbiswasfc/MMLU-Pro"), ("gsm8k", "openai/gsm8k")]
)
def test_real_train_splits_give_fit_and_select(real_tasks, name, repo):
    task = real_tasks[name]
    train = rows_of(repo, "train")
    assert len(task.select) == math.ceil(0.1 * train)
    assert len(task.fit) == train - len(task.select)
    assert len(task.test) == rows_of(repo, "test")


@real_rows
def test_real_mmlu_keeps_its_own_splits(real_tasks):
    task = real_tasks["mmlu"]
    sizes = [rows_of("cais/mmlu", split) for split in ("auxiliary_train", "validation", "test")]
    assert [len(task.fit), len(task.select), len(task.test)] == sizes


@real_rows
@pytest.mark.parametrize("name", BENCHMARKS)
def test_real_rows_make_whole_samples(real_tasks, name):
    task = real_tasks[name]
    samples = everything(task)
    assert len({sample.id for sample in samples}) == len(samples)
    assert all(sample.prompt.endswith(ENDINGS[name]) for sample in samples)
    assert all(sample.target and all(sample.target) for sample in samples)
    assert {sample.id for sample in task.fit}.isdisjoint(sample.id for sample in task.test)


@real_rows
@pytest.mark.parametrize("name", ["mmlu", "mmlu-pro", "bbq-ambig", "bbq-disambig", "gsm8k"])
def test_real_reference_replies_are_right(real_tasks, name):
    task = real_tasks[name]
    rows = everything(task)
    wrong = [
        sample.id
        for sample in random.sample(rows, min(len(rows), 400))
        if score(task.scorer, task.reference(sample), sample).outcome != 1
    ]
    assert wrong == []


@real_rows
def test_real_bbq_has_an_unknown_option_in_every_row(real_tasks):
    ambiguous, told = (everything(real_tasks[name]) for name in ("bbq-ambig", "bbq-disambig"))
    assert all(sample.metadata["unknown"] for sample in [*ambiguous, *told])
    assert all(sample.metadata["unknown"] == sample.target[0] for sample in ambiguous)
    assert all(sample.metadata["unknown"] != sample.target[0] for sample in told)
    wordings = {s.choices["ABC".index(s.metadata["unknown"])] for s in [*ambiguous, *told]}
    assert wordings == set(offline_hub.UNKNOWN_WORDINGS)


@real_rows
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_model_is_run_and_judged_on_real_rows(real_tasks, lm, name):
    task = real_tasks[name]
    shortest = tuple(sorted(task.test, key=lambda sample: len(sample.prompt))[:4])
    scorer = load_scorer(RULES.get(task.scorer.name, task.scorer.name))
    task = replace(task, test=shortest, scorer=scorer, max_new_tokens=min(3, task.max_new_tokens))
    replies = ArmRunner(lm, task, "test", batch_size=4).baseline
    assert len(replies.texts) == 4
    assert all(0 <= outcome <= 1 for outcome in replies.outcomes)


@real_rows
@pytest.mark.parametrize("name", ["mmlu-pro", "bbq-ambig", "harmbench", "simpleqa"])
def test_a_local_copy_of_real_rows_gives_the_same_task(real_tasks, empty_hub, name):
    assert everything(cs.load_task(name, data=REAL / "rows")) == everything(real_tasks[name])
