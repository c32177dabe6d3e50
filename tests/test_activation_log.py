import errno
import gc
import json
import os
import tempfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import corrsteer as cs
from corrsteer.errors import ArtifactError
from corrsteer.runs import activation_log
from corrsteer.runs.activation_log import LOG_FILE, OUTCOMES_FILE, Entries, LogWriter, open_log

WIDTHS = {"blocks.0.hook_resid_post": 30, "blocks.3.hook_resid_post": 20}


def pooled(samples, seed=0, density=0.2):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(samples, d, generator=generator)
        * (torch.rand(samples, d, generator=generator) < density)
        for name, d in WIDTHS.items()
    }


def written(sizes=(4, 1, 6), density=0.2):
    """A log of some batches, with what went into it."""
    writer, batches = LogWriter(WIDTHS), []
    for seed, size in enumerate(sizes):
        batches.append(pooled(size, seed, density))
        writer.add(
            Entries.of(
                [f"{seed}-{i}" for i in range(size)],
                [0.5 * (i % 3) for i in range(size)],
                batches[-1],
            )
        )
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in WIDTHS}
    return writer.close(), whole


@pytest.mark.parametrize("buffer", [1, 2**21])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_a_log_holds_what_was_written_to_float16(monkeypatch, buffer, density):
    monkeypatch.setattr(activation_log, "BUFFER_ENTRIES", buffer)
    log, whole = written(density=density)
    assert log.ids[:5] == ("0-0", "0-1", "0-2", "0-3", "1-0")
    assert log.outcomes.tolist() == [0, 0.5, 1, 0, 0, 0, 0.5, 1, 0, 0.5, 1]
    for name, z in whole.items():
        got = log.activations(name)
        assert got.shape == (WIDTHS[name], 11)
        np.testing.assert_array_equal(got.toarray(), z.half().double().numpy().T)


def test_values_beyond_float16_stay_finite_and_active():
    writer = LogWriter({"blocks.0.hook_resid_post": 4})
    z = torch.tensor([[1e6, 1e-12, -1e-12, 0.0]])
    writer.add(Entries.of(["a"], [1.0], {"blocks.0.hook_resid_post": z}))
    got = writer.close().activations("blocks.0.hook_resid_post").toarray()[:, 0]
    assert got.tolist() == [65504.0, 2.0**-24, -(2.0**-24), 0.0]


def test_a_saved_log_is_read_back_and_needs_no_temporary_folder(tmp_path):
    log, whole = written()
    log.save(tmp_path)
    spool = log.folder
    assert spool.exists()
    del log
    gc.collect()
    assert not spool.exists()
    back = open_log(tmp_path)
    assert back.widths == WIDTHS
    assert len(back.ids) == 11
    for name, z in whole.items():
        np.testing.assert_array_equal(back.activations(name).toarray(), z.half().double().numpy().T)


def test_a_log_is_copied_where_it_cannot_be_linked(tmp_path, monkeypatch):
    def across(source, target):
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", across)
    log, _ = written()
    log.save(tmp_path)
    assert open_log(tmp_path).ids == log.ids


def test_appending_logs_equals_one_log_of_all():
    parts = [written((3, 2)), written((6,))]
    writer = LogWriter(WIDTHS)
    for log, _ in parts:
        writer.append(log)
    joined = writer.close()
    assert joined.ids == parts[0][0].ids + parts[1][0].ids
    assert len(joined.outcomes) == 11
    for name in WIDTHS:
        expected = np.hstack([log.activations(name).toarray() for log, _ in parts])
        np.testing.assert_array_equal(joined.activations(name).toarray(), expected)


def test_a_log_that_grows_too_large_is_given_up(monkeypatch):
    monkeypatch.setattr(activation_log, "BUFFER_ENTRIES", 1)
    writer = LogWriter(WIDTHS, limit_bytes=2000)
    for seed in range(20):
        writer.add(Entries.of([str(seed)], [1.0], pooled(1, seed)))
    assert writer.close() is None
    assert "grew past" in writer.given_up
    assert not writer._spool.path.exists()


def test_no_more_than_a_buffer_and_a_batch_are_held(monkeypatch):
    monkeypatch.setattr(activation_log, "BUFFER_ENTRIES", 500)
    writer = LogWriter(WIDTHS)
    for seed in range(50):
        batch = pooled(8, seed)
        writer.add(Entries.of([f"{seed}-{i}" for i in range(8)], [1.0] * 8, batch))
        assert writer._held < 500
        assert sum(len(b) for held in writer._buffers.values() for b in held) == writer._held
    assert len(writer.close().ids) == 400


def test_a_log_of_other_samples_is_refused(lm, task, tmp_path):
    folder = cs.fit(lm, task, strategy="A").save(tmp_path / "run")
    for name in (LOG_FILE, OUTCOMES_FILE):
        (folder / name).unlink()
    written()[0].save(folder)
    with pytest.raises(ArtifactError, match="is not of the samples that the run's statistics"):
        cs.load_run(folder)


def test_disk_takes_a_few_bytes_a_value():
    d, samples = 4096, 256
    name = "blocks.0.hook_resid_post"
    writer = LogWriter({name: d})
    z = torch.rand(samples, d) * (torch.rand(samples, d) < 0.03)
    writer.add(Entries.of([str(i) for i in range(samples)], [1.0] * samples, {name: z}))
    log = writer.close()
    assert (log.folder / LOG_FILE).stat().st_size < 4 * int(z.count_nonzero()) + 4000


def test_a_full_disk_is_one_line_with_a_remedy(monkeypatch):
    writer = LogWriter(WIDTHS)
    writer.add(Entries.of(["a"], [1.0], pooled(1)))

    def full(table):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer._file, "write_table", full)
    with pytest.raises(ArtifactError, match="No space left on device; free some space there"):
        writer.close()
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix, dir=None: full(prefix))
    with pytest.raises(ArtifactError, match="set TMPDIR to another folder, or use --no-log"):
        LogWriter(WIDTHS)


@pytest.mark.parametrize("name", [LOG_FILE, OUTCOMES_FILE])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_truncated_log_is_refused(tmp_path, name, share):
    written()[0].save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtifactError, match="is corrupt or missing"):
        open_log(tmp_path)


def test_a_parquet_file_of_another_kind_is_refused(tmp_path):
    written()[0].save(tmp_path)
    pq.write_table(pq.read_table(tmp_path / OUTCOMES_FILE), tmp_path / LOG_FILE)
    with pytest.raises(ArtifactError, match="is not a log of activations"):
        open_log(tmp_path)


def test_no_log_is_none(tmp_path):
    assert open_log(tmp_path) is None


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"say {i}"}) for i in range(60)))
    return cs.load_task(path, scorer=r"regex:^\s*[n-zN-Z0-4]", max_new_tokens=3)


def test_a_run_logs_what_its_statistics_are_of(lm, task, tmp_path):
    run = cs.fit(lm, task, strategy="A")
    log = cs.load_run(run.save(tmp_path / "run")).log
    assert sorted(log.ids) == sorted(sample.id for sample in task.fit)
    for name, statistics in run.statistics.items():
        z = torch.tensor(log.activations(name).toarray().T)
        again = cs.StreamingCorrelation(z.shape[1]).update(z, torch.tensor(log.outcomes))
        assert torch.equal(again.active, statistics.active)
        torch.testing.assert_close(
            again.correlation(), statistics.correlation(), atol=1e-3, rtol=0, equal_nan=True
        )


def test_a_run_can_go_without_a_log(lm, task, tmp_path):
    run = cs.fit(lm, task, strategy="A", log=False)
    folder = run.save(tmp_path / "run")
    assert not (folder / LOG_FILE).exists()
    assert cs.load_run(folder).log is None
    assert run.inference.p_method == "Bonferroni"
    assert "--no-log" in run.inference.note


def test_dense_residual_dimensions_are_logged_too(hub, task):
    raw = cs.load_model(str(hub / "model"), sae="raw")
    run = cs.fit(raw, task, strategy="S")
    assert run.features[0].p_method == "max-T permutation"
    density = [run.log.activations(name).nnz for name in run.log.widths]
    assert density == [16 * 30] * 3


def test_a_changed_byte_of_the_footer_is_read_or_refused(tmp_path):
    """Parquet's own statistics ended the process where their type was another."""
    log, _ = written()
    log.save(tmp_path)
    content = (tmp_path / LOG_FILE).read_bytes()
    footer = int.from_bytes(content[-8:-4], "little")
    refused = 0
    for place in range(len(content) - 8 - footer, len(content)):
        changed = bytearray(content)
        changed[place] = (changed[place] + 1) % 256
        (tmp_path / LOG_FILE).write_bytes(changed)
        try:
            log = open_log(tmp_path)
            for name in log.widths:
                log.activations(name)
        except ArtifactError:
            refused += 1
    assert refused > footer / 4


def test_a_log_knows_which_samples_belong_together(tmp_path):
    first, second = (LogWriter(WIDTHS, {"a": "g", "b": "g"}) for _ in range(2))
    first.add(Entries.of(["a", "b", "c"], [0.0, 1.0, 1.0], pooled(3)))
    second.add(Entries.of(["d", "b"], [0.0, 1.0], pooled(2, seed=1)))
    joined = LogWriter(WIDTHS)
    joined.append(first.close())
    joined.append(second.close())
    log = joined.close()
    log.save(tmp_path)
    assert open_log(tmp_path).labels == log.labels == ("g", "g", "c", "d", "g")
    assert open_log(tmp_path).groups.sizes.tolist() == [1, 1, 3]


def test_a_log_of_before_there_were_groups_is_read(tmp_path):
    log, _ = written()
    log.save(tmp_path)
    path = tmp_path / OUTCOMES_FILE
    path_before = pq.read_table(path).drop_columns("group")
    path.unlink()  # a link to the log's own
    pq.write_table(path_before, path)
    assert open_log(tmp_path).outcomes.tolist() == log.outcomes.tolist()
    assert open_log(tmp_path).groups.single
