import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from corrsteer.cli import cli, main
from corrsteer.errors import ArtifactError, InsufficientDataError, SettingsError
from corrsteer.report.study import write
from corrsteer.report.study.page import page
from corrsteer.studies.paper import Study, StudySettings, tables
from corrsteer.studies.paper.cells import Cells
from corrsteer.studies.paper.published import published

TASKS = ("mini-mmlu", "mini-bbq-ambig")
SCORER = r"regex:^\s*[n-zN-Z0-4]"
COUNTS = {"samples": 24, "val-limit": 10, "test-limit": 14, "permutations": 19, "controls": 1}
FEW = tuple(f"--{name}={value}" for name, value in COUNTS.items())


def arguments(out, *more):
    asked = ("study", "paper", "--model=mini", f"--tasks={','.join(TASKS)}", "--seeds=42,43", *FEW)
    return [*asked, "--skip=sft", f"--out={out}", *map(str, more)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "whole"
    done = CliRunner().invoke(cli, [*arguments(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"study": str(out), **read(out / "study.json")}
    return out


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def cell(folder, key):
    return read(folder / "cells" / f"{key}.json")


def rows(folder, name, **labels):
    with (folder / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return [row for row in found if all(row[key] == value for key, value in labels.items())]


def final_files(folder):
    """Every file of a study but its runs, which say how long they took."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "runs" not in path.relative_to(folder).parts
    }


def test_accuracy_and_ser_are_those_of_the_main_runs(whole):
    wide = {row["method"]: row for row in rows(whole, "accuracy")}
    effects = {row["method"]: row for row in rows(whole, "side-effects")}
    for task in TASKS:
        found = cell(whole, f"main-{task}")
        assert float(wide["baseline"][task]) == found["baseline"]["accuracy"]
        for strategy in "SAPG":
            arm = found["strategies"][strategy]
            assert float(wide[strategy][task]) == arm["steered"]["accuracy"]
            ser = effects[strategy][task]
            assert (float(ser) if ser else None) == arm["side_effects"]["ser"]
            (row,) = rows(whole, "arms", task=task, method=strategy)
            assert float(row["change"]) == arm["delta"]["value"]
            assert int(row["worsened"]) == arm["side_effects"]["worsened"]
        document = read(whole / "runs" / f"main-{task}" / "evaluation.json")
        assert found["baseline"] == document["baseline"]
        assert found["strategies"] == document["strategies"]


def test_cells_hold_no_times(whole):
    for path in (whole / "cells").iterdir():
        assert '"seconds"' not in path.read_text(encoding="utf-8")


def test_mean_and_spread_are_over_the_seeds(whole):
    for task in TASKS:
        found = [cell(whole, f"seed-{seed}-{task}") for seed in (42, 43)]
        for strategy in "SAP":
            arms = [arm for run in found for arm in run["arms"] if arm["strategy"] == strategy]
            values = [arm["steered"]["accuracy"] for arm in arms]
            (row,) = rows(whole, "seeds", task=task, method=strategy)
            assert float(row["accuracy"]) == pytest.approx(statistics.mean(values))
            assert float(row["accuracy sd"]) == pytest.approx(statistics.stdev(values))
            assert int(row["fit samples"]) == found[0]["n_fit"] == 24


def test_transfer_is_source_by_target_and_its_diagonal_the_main_run(whole):
    wide = {row["source"]: row for row in rows(whole, "transfer")}
    assert list(wide) == ["baseline", *TASKS]
    for target in TASKS:
        main = cell(whole, f"main-{target}")
        assert float(wide["baseline"][target]) == main["baseline"]["accuracy"]
        own = main["strategies"]["A"]["steered"]["accuracy"]
        assert float(wide[target][target]) == own
        for arm in cell(whole, f"transfer-{target}")["arms"]:
            if arm["strategy"] == "A":
                assert float(wide[arm["source"]][target]) == arm["steered"]["accuracy"]


def test_all_samples_choose_what_the_main_run_did(whole):
    for task in TASKS:
        *_, last = rows(whole, "samples", task=task)
        assert (last["samples"], last["same best of layers"], last["same S"]) == (
            "24",
            "1.0",
            "yes",
        )
        main = cell(whole, f"main-{task}")["strategies"]
        assert float(last["accuracy of A"]) == pytest.approx(main["A"]["steered"]["accuracy"])


def test_the_first_way_to_select_is_that_of_the_main_run(whole):
    for task in TASKS:
        first, *others = rows(whole, "methods", task=task, strategy="A")
        main = cell(whole, f"main-{task}")["strategies"]["A"]
        assert (first["method"], float(first["shared"])) == ("corr", 1.0)
        assert float(first["accuracy"]) == main["steered"]["accuracy"]
        contrast = others[0]
        assert (contrast["coefficient"], float(contrast["shared"])) == ("contrast", 1.0)
        negative = next(row for row in others if row["sign"] == "negative")
        assert float(negative["shared"]) == 0.0


def test_frequency_and_features_are_those_of_the_run(whole):
    for task in TASKS:
        chosen = cell(whole, f"main-{task}")["strategies"]["A"]["features"]
        found = rows(whole, "frequency", task=task)
        assert [int(row["latent"]) for row in found] == [each["latent"] for each in chosen]
        assert [float(row["active"]) for row in found] == [each["frequency"] for each in chosen]
        listed = rows(whole, "features", task=task)
        assert {int(row["latent"]) for row in listed} >= {each["latent"] for each in chosen}


def test_tables_and_figures_are_there_in_every_form(whole):
    names = {path.stem for path in (whole / "tables").iterdir()}
    assert names >= {"accuracy", "side-effects", "arms", "features", "frequency", "samples"}
    assert names >= {"transfer", "pooling", "raw", "methods", "seeds"}
    assert names == set(read(whole / "study.json")["tables"])
    for name in names:
        assert {p.suffix for p in (whole / "tables").glob(f"{name}.*")} == {".csv", ".md"}
    figures = {path.stem for path in (whole / "figures").iterdir()}
    assert figures >= {"accuracy", "samples", "stability", "transfer", "pooling", "methods"}
    for name in figures:
        assert (whole / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (whole / "figures" / f"{name}.svg").read_bytes()


class Page(HTMLParser):
    """Collects tags, ids and what would be loaded."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.loads = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.loads += [value for name, value in attrs if name in ("src", "srcset", "data")]


def test_the_page_is_one_file_that_loads_nothing(whole):
    text = (whole / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert page.loads == []
    assert len(page.ids) == len(set(page.ids))
    assert {"accuracy", "samples", "transfer", "pooling", "methods", "seeds"} <= set(page.ids)
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert "It has no numbers for this model" in text


def test_the_papers_numbers_stand_beside_those_of_its_model_only(whole):
    found = study_of(whole, {"mini-mmlu": "mmlu", "mini-bbq-ambig": "bbq-ambig"}, "gemma2b")
    (wide,) = (table for table in tables(found) if table.name == "accuracy")
    by_method = {row["method"]: row for row in wide.records()}
    assert by_method["A"]["mmlu, paper"] == pytest.approx(0.5548)
    assert by_method["S"]["bbq-ambig, paper"] == pytest.approx(0.6239)
    made = {table.name: table.records() for table in tables(found)}
    (row,) = [r for r in made["transfer"] if r["source"] == "mmlu"]
    assert row["bbq-ambig, paper"] == pytest.approx(0.6401)
    pooled = [r for r in made["pooling"] if (r["task"], r["pooling"]) == ("mmlu", "mean")]
    assert [r["accuracy, paper"] for r in pooled] == [None, pytest.approx(0.5632)]
    text = page(found, tables(found), {})
    assert "mmlu, paper" in text
    assert "It has no numbers for this model" not in text
    assert published("mini") == {}
    assert published("google/gemma-2-2b-it") == published("gemma2b")


def study_of(folder, names, model="mini"):
    """The study in a folder, its tasks called by other names."""
    settings = StudySettings(seeds=(42, 43), samples=24, val_limit=10, test_limit=14)
    results = {}
    for path in (folder / "cells").iterdir():
        key, text = path.stem, path.read_text(encoding="utf-8")
        for old, new in names.items():
            key, text = key.replace(old, new), text.replace(f'"{old}"', f'"{new}"')
        results[key] = json.loads(text)
    return Study(model, tuple(names.values()), settings, results)


def test_what_a_task_is_called_is_shown_as_text(whole, tmp_path):
    name = "<script>alert(1)</script>|$x_1$.jsonl"
    found = study_of(whole, {"mini-mmlu": "first", "mini-bbq-ambig": "second"})
    results = {
        key.replace("first", "-script-alert-1-script-x_1-.jsonl"): value
        for key, value in found.results.items()
        if key.startswith("main-")
    }
    found = Study("mini", (name, "second"), found.settings, results)
    assert found.get("main", name)
    write(found, tmp_path)
    for path in tmp_path.rglob("*"):
        if path.suffix in (".html", ".md", ".svg"):
            assert "<script>" not in path.read_text(encoding="utf-8"), path


def test_a_finished_study_is_not_run_again(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    before = final_files(whole)
    (tmp_path / "copy" / "tables" / "stale.csv").write_text("")
    (tmp_path / "copy" / "index.html").unlink()
    done = CliRunner().invoke(cli, arguments(tmp_path / "copy"))
    assert done.exit_code == 0, done.output
    assert "accuracy on the test split" in done.output
    assert final_files(tmp_path / "copy") == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--samples=25"], "is a study with samples 24, not 25"),
        (["--tasks=mini-mmlu"], "is a study with tasks"),
        (["--seeds=43,42"], "is a study with seed 42, not 43"),
        (["--skip=nothing"], "skip has 'nothing'; choose from methods"),
        (["--seeds=1,1"], "give one or more different numbers"),
        (["--scorer=exact"], "give TASK=NAME"),
    ],
)
def test_other_settings_are_refused_in_one_line(whole, more, message, capsys):
    before = final_files(whole)
    with pytest.raises(SystemExit) as stopped:
        main(arguments(whole, *more))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert final_files(whole) == before


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(ArtifactError, match="holds other files"):
        Cells(tmp_path, {})


def test_a_cell_is_done_once_and_what_a_kill_left_is_removed(tmp_path):
    cells, calls = Cells(tmp_path / "study", {"tasks": ["x"]}), []

    def execution(kept):
        kept.remember("unit", 1)
        assert not cells.run_folder("main-x").exists()
        calls.append(1)
        return {"value": 0.1 + 0.2}

    cells.run_folder("main-x").mkdir(parents=True)
    (cells.run_folder("main-x") / "features.json").write_text("{")
    (tmp_path / "study" / "cells" / ".corrsteer-abc").mkdir(parents=True)
    (tmp_path / "study" / "cells" / ".corrsteer-abc" / "whole").write_text("{")
    assert (
        cells.done("main-x", execution) == {"value": 0.1 + 0.2} == cells.done("main-x", execution)
    )
    assert calls == [1]
    left = [path for path in (tmp_path / "study").rglob("*") if path.is_file()]
    assert {path.name for path in left} == {"main-x.json", "settings.json"}


def test_what_an_unfinished_cell_has_done_is_kept(tmp_path):
    cells = Cells(tmp_path / "study", {})

    def killed(kept):
        kept.remember("unit", [1, 2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="give the same command again"), cells.held():
        cells.done("main-x", killed)
    with cells.held():
        with pytest.raises(ArtifactError, match="another process is at work"):
            Cells(tmp_path / "study", {}).held().__enter__()
        assert cells.done("main-x", lambda kept: kept.results) == {"unit": [1, 2]}
        (cells.folder / "unfinished" / "main-x").mkdir()  # killed right after the result
        assert cells.done("main-x", lambda kept: {}) == {"unit": [1, 2]}
    assert {path.name for path in cells.folder.iterdir()} == {"settings.json", "cells"}


def test_samples_that_allow_no_result_are_a_result(tmp_path):
    def execution(kept):
        raise InsufficientDataError("all 9 fit outcomes equal 1")

    cells = Cells(tmp_path / "study", {})
    assert cells.done("main-x", execution) == {"unavailable": "all 9 fit outcomes equal 1"}
    found = Study("mini", ("x",), StudySettings(), {"main-x": cells.get("main-x")})
    assert [(t.name, t.rows) for t in tables(found)] == [
        ("left-out", (("main-x", "all 9 fit outcomes equal 1"),))
    ]
    write(found, tmp_path / "out")
    assert "all 9 fit outcomes equal 1" in (tmp_path / "out" / "index.html").read_text()


def test_settings_that_cannot_work_are_refused():
    for wrong in ({"seeds": ()}, {"seeds": (-1,)}, {"permutations": 0}, {"samples": 1}):
        with pytest.raises(SettingsError):
            StudySettings(**wrong)


@pytest.fixture(scope="module")
def tiny(hub, tmp_path_factory):
    """The arguments of a study of the tiny model on two files, but for where it is."""
    folder = tmp_path_factory.mktemp("rows")
    found = ["study", "paper", f"--model={hub / 'model'}", f"--sae={hub / 'saes'}", *FEW]
    names = [str(folder / f"{name}.jsonl") for name in ("one", "two")]
    for index, name in enumerate(names):
        prompts = [f"say {i} {chr(97 + (i + index) % 26)}:" for i in range(60)]
        Path(name).write_text("\n".join(json.dumps({"prompt": each}) for each in prompts))
        found.append(f"--scorer={name}={SCORER}")
    return [
        *found,
        f"--tasks={','.join(names)}",
        "--seeds=1,2",
        "--skip=sft,samples,methods,raw,seeds",
    ]


def test_a_killed_study_ends_as_one_that_was_not(tiny, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code = "import sys; from corrsteer.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *tiny, f"--out={killed}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while process.poll() is None and len(list(killed.glob("cells/*.json"))) < 3:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1].decode()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in killed.glob("cells/*.json")}
    assert len(kept) >= 3
    assert not (killed / "index.html").exists()
    for out in (killed, whole):
        done = CliRunner().invoke(cli, [*tiny, f"--out={out}"])
        assert done.exit_code == 0, done.output
    assert final_files(killed) == final_files(whole)
    assert len(list(whole.glob("cells/*.json"))) > len(kept)
    for name, written in kept.items():
        assert (killed / "cells" / name).stat().st_mtime_ns == written, "it was done again"
