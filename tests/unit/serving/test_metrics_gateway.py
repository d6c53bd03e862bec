"""The lines that nginx writes for its answers: each is counted once, and the file stays small."""

from __future__ import annotations

import pytest

from serving.sidecars.metrics.gateway import GatewayAnswers


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.log"


def counted(answers):
    return {
        (sample.name.removeprefix("fashion_gateway_"), *sample.labels.values()): sample.value
        for family in answers.metrics()
        for sample in family.samples
    }


def write(path, text):
    with path.open("a") as file:
        file.write(text)


def test_counts_statuses_and_times(path):
    write(path, "200 0.001\n200 0.003\n200 0.003\n503 0.000\n429 0.000\n499 31.500\n")
    answers = GatewayAnswers(path)
    answers.count()
    values = counted(answers)
    assert {key[1]: value for key, value in values.items() if key[0] == "requests_total" and value} == {
        "200": 3,
        "429": 1,
        "499": 1,
        "503": 1,
    }
    assert [values["seconds_bucket", bound] for bound in ("0.001", "0.0025", "0.005", "30.0", "+Inf")] == [
        3,
        3,
        5,
        5,
        6,
    ]
    assert values["seconds_count",] == 6
    assert values["seconds_sum",] == pytest.approx(31.507)


def test_failures_are_exported_before_the_first_one(path):
    assert counted(GatewayAnswers(path))["requests_total", "503"] == 0


def test_the_file_is_truncated_and_no_line_is_counted_twice(path):
    answers = GatewayAnswers(path)
    answers.count()
    for turn in range(1, 4):
        # nginx writes pieces that may end within a line.
        write(path, "200 0.0")
        answers.count()
        write(path, "01\n200 0.002\n")
        answers.count()
        assert counted(answers)["requests_total", "200"] == 2 * turn
        assert path.read_text() == ""


def test_a_file_that_cannot_be_truncated_is_read_from_the_last_position(path, monkeypatch, caplog):
    answers = GatewayAnswers(path)
    opened = type(path).open

    def read_only(self, mode="r", *arguments, **options):
        if "+" in mode:
            raise OSError(30, "Read-only file system")
        return opened(self, mode, *arguments, **options)

    for turn in range(1, 3):
        write(path, "200 0.001\n")
        with monkeypatch.context() as patch:
            patch.setattr(type(path), "open", read_only)
            answers.count()
        assert counted(answers)["requests_total", "200"] == turn
    assert caplog.text.count("cannot be truncated") == 1
    # After another process truncates the file, it is read from the start.
    path.write_text("")
    write(path, "200 0.001\n")
    answers.count()
    assert counted(answers)["requests_total", "200"] == 3


def test_unexpected_lines_are_skipped(path, caplog):
    write(path, "200 0.001\nrubbish\n\n200 x\n")
    answers = GatewayAnswers(path)
    answers.count()
    assert counted(answers)["requests_total", "200"] == 1
    assert "unexpected line" in caplog.text
