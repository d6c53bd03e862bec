"""The workers' counts, read from their files: with several workers, killed workers and new archives."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from handlers import problems
from handlers.metrics.recorder import Batch, Recorder
from serving.settings import ROOT
from serving.sidecars.metrics import workers
from tests.support.signatures import FASHION, SIGMOID, VECTOR

MLP = dataclasses.replace(FASHION, scored={"test_accuracy": 0.9})


def counted(folder):
    """Every sample of the folder: ``name{label=value,…}`` → value, with the labels in alphabetical order."""
    samples: dict[str, float] = {}
    for family in workers.read(folder):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}"
            assert key not in samples
            samples[key] = sample.value
    return samples


def differing(before, after):
    return {key: value - before[key] for key, value in after.items() if value != before[key]}


def batch(*content_types, refused=(), seconds=(0.001, 0.002, 0.003), probabilities=None):
    return Batch(list(content_types), list(refused), seconds, probabilities)


def confident(*rows):
    return np.array(rows, np.float32)


def test_every_series_exists_with_zero_before_the_first_request(tmp_path):
    Recorder(tmp_path, MLP)
    samples = counted(tmp_path)
    assert samples.pop("fashion_model_info{kind=image,model=fashion,version=1.0}") == 1
    assert samples.pop("fashion_model_accuracy{model=fashion,version=1.0}") == 0.9
    assert set(samples.values()) == {0}
    assert "fashion_requests_total{format=png,model=fashion,status=422,version=1.0}" in samples
    assert "fashion_rejected_total{model=fashion,reason=too-large,version=1.0}" in samples


def test_counts_requests_by_format_and_status(tmp_path):
    recorder = Recorder(tmp_path, MLP)
    before = counted(tmp_path)
    recorder.add(batch("image/png", "image/png", "application/octet-stream"))
    recorder.add(batch("image/png", refused=[("text/csv", problems.UnsupportedFormat), ("", problems.Internal)]))
    recorder.flush()
    samples = differing(before, counted(tmp_path))
    requests = {key: value for key, value in samples.items() if key.startswith("fashion_re")}
    assert requests == {
        "fashion_requests_total{format=png,model=fashion,status=200,version=1.0}": 3,
        "fashion_requests_total{format=raw,model=fashion,status=200,version=1.0}": 1,
        "fashion_requests_total{format=text,model=fashion,status=415,version=1.0}": 1,
        "fashion_requests_total{format=none,model=fashion,status=500,version=1.0}": 1,
        # Faults of the service are not counted as rejected inputs.
        "fashion_rejected_total{model=fashion,reason=unsupported-format,version=1.0}": 1,
    }


def test_observes_stages_once_for_each_request(tmp_path):
    recorder = Recorder(tmp_path, MLP)
    recorder.add(batch("image/png", "image/png", seconds=(0.0001, 0.02, 20.0)))
    recorder.add(batch("image/png", seconds=(0.0001, 0.02, 0.001)))
    recorder.flush()
    samples = counted(tmp_path)

    def bucket(stage, bound):
        return samples[f"fashion_stage_seconds_bucket{{le={bound},model=fashion,stage={stage},version=1.0}}"]

    def total(stage, suffix):
        return samples[f"fashion_stage_seconds_{suffix}{{model=fashion,stage={stage},version=1.0}}"]

    assert [bucket("decode", bound) for bound in ("0.0001", "0.00025", "+Inf")] == [3, 3, 3]
    assert [bucket("inference", bound) for bound in ("0.01", "0.025", "+Inf")] == [0, 3, 3]
    assert [bucket("encode", bound) for bound in ("0.0005", "0.001", "10.0", "+Inf")] == [0, 1, 1, 3]
    assert (total("encode", "count"), total("encode", "sum")) == (3, pytest.approx(40.001))
    assert samples["fashion_handler_seconds_bucket{le=0.025,model=fashion,version=1.0}"] == 1
    assert samples["fashion_handler_seconds_sum{model=fashion,version=1.0}"] == pytest.approx(40.0613)


def test_observes_batches(tmp_path):
    recorder = Recorder(tmp_path, MLP)
    recorder.add(batch(*["image/png"] * 16))
    recorder.add(batch("image/png", refused=[("image/png", problems.Malformed)] * 2))
    recorder.add(Batch())
    recorder.flush()
    samples = counted(tmp_path)
    bounds = ("2.0", "4.0", "8.0", "16.0", "+Inf")
    buckets = [samples[f"fashion_batch_requests_bucket{{le={bound},model=fashion,version=1.0}}"] for bound in bounds]
    assert buckets == [0, 1, 1, 2, 2]
    assert samples["fashion_batch_requests_sum{model=fashion,version=1.0}"] == 19


def test_counts_decisions_and_confidence(tmp_path):
    recorder = Recorder(tmp_path, VECTOR)
    recorder.add(batch("", probabilities=confident([0.25, 0.5, 0.25], [1.0, 0.0, 0.0])))
    recorder.add(batch("", probabilities=confident([np.nan] * 3, [0.875, 0.125, 0.0])))
    recorder.flush()
    samples = counted(tmp_path)
    decided = [
        samples[f"fashion_predictions_total{{label={label},model=blobs,version=1.0}}"]
        for label in ("one", "two", "three")
    ]
    assert decided == [2, 1, 0]
    assert samples["fashion_examples_total{model=blobs,version=1.0}"] == 3
    assert samples["fashion_confidence_sum{model=blobs,version=1.0}"] == 2.375
    bounds = ("0.4", "0.5", "0.8", "0.9", "0.999", "1.0", "+Inf")
    buckets = [samples[f"fashion_confidence_bucket{{le={bound},model=blobs,version=1.0}}"] for bound in bounds]
    assert buckets == [0, 1, 1, 2, 2, 3, 3]


def test_counts_each_label_of_a_sigmoid_model(tmp_path):
    recorder = Recorder(tmp_path, SIGMOID)
    recorder.add(batch("", probabilities=confident([0.5, 0.75], [0.25, 0.25])))
    recorder.flush()
    samples = counted(tmp_path)
    decided = [
        samples[f"fashion_predictions_total{{label={label},model=switches,version=2.0}}"]
        for label in SIGMOID.output.labels
    ]
    assert decided == [1, 1]
    # (0.5 + 0.75) / 2 + (0.75 + 0.75) / 2
    assert samples["fashion_confidence_sum{model=switches,version=2.0}"] == 1.375


def test_adds_up_the_workers_of_a_model(tmp_path):
    first, second = Recorder(tmp_path, MLP), Recorder(tmp_path, MLP)
    other_model = Recorder(tmp_path, VECTOR)
    first.add(batch("image/png"))
    second.add(batch("image/png", "image/png"))
    other_model.add(batch("application/json"))
    for each in (first, second, other_model):
        each.flush()
    samples = counted(tmp_path)
    assert samples["fashion_requests_total{format=png,model=fashion,status=200,version=1.0}"] == 3
    assert samples["fashion_requests_total{format=json,model=blobs,status=200,version=1.0}"] == 1
    assert samples["fashion_model_accuracy{model=fashion,version=1.0}"] == 0.9


def test_a_new_worker_continues_the_counts_of_a_killed_one(tmp_path):
    script = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from tests.unit.serving.test_metrics_workers import MLP, Recorder, batch
        recorder = Recorder(Path({str(tmp_path)!r}), MLP)
        recorder.add(batch("image/png"))
        recorder.flush()
        print("counted", flush=True)
        sys.stdin.read()
        """
    )
    for _ in range(3):
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "counted\n"
            worker.kill()
    assert counted(tmp_path)["fashion_requests_total{format=png,model=fashion,status=200,version=1.0}"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["fashion-1.0-0.counts"]


def test_another_archive_of_the_same_version_starts_from_zero(tmp_path):
    recorder = Recorder(tmp_path, VECTOR)
    recorder.add(batch("application/json"))
    recorder.flush()
    del recorder
    labels = dataclasses.replace(VECTOR.output, labels=("a", "b"))
    Recorder(tmp_path, dataclasses.replace(VECTOR, output=labels))
    samples = counted(tmp_path)
    assert samples["fashion_requests_total{format=json,model=blobs,status=200,version=1.0}"] == 0
    assert "fashion_predictions_total{label=a,model=blobs,version=1.0}" in samples
    assert "fashion_predictions_total{label=one,model=blobs,version=1.0}" not in samples


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"model": "x"}\n', b'{"families": [{"name": "x"}]}\n', b"[]\n", b"\n" + bytes(16)],
    ids=repr,
)
def test_an_incomplete_file_is_skipped(tmp_path, content):
    Recorder(tmp_path, VECTOR)
    before = counted(tmp_path)
    (tmp_path / "other-1.0-0.counts").write_bytes(content)
    assert counted(tmp_path) == before


@pytest.mark.parametrize("missing", [1, 8], ids=["a byte short", "a number short"])
def test_a_file_that_is_too_short_is_skipped(tmp_path, missing):
    Recorder(tmp_path, VECTOR)
    before = counted(tmp_path)
    Recorder(tmp_path, FASHION)
    assert counted(tmp_path) != before
    path = tmp_path / "fashion-1.0-0.counts"
    os.truncate(path, path.stat().st_size - missing)
    assert counted(tmp_path) == before


def test_a_file_that_shrinks_while_it_is_read_does_not_end_the_reader(tmp_path):
    # In a separate process, because a SIGBUS would end it.
    script = textwrap.dedent(
        f"""
        import json, os
        from pathlib import Path
        from serving.sidecars.metrics import workers
        from tests.support.signatures import VECTOR
        from tests.unit.serving.test_metrics_workers import Recorder
        folder = Path({str(tmp_path)!r})
        Recorder(folder, VECTOR)
        parse = json.loads
        def truncate_and_parse(text):
            os.truncate(folder / "blobs-1.0-0.counts", 0)
            return parse(text)
        json.loads = truncate_and_parse
        workers.read(folder)
        assert workers.read(folder) == []
        """
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_clear_removes_only_counts(tmp_path):
    Recorder(tmp_path, VECTOR)
    (tmp_path / "notes.txt").write_text("mine")
    workers.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    workers.clear(tmp_path / "missing")
