"""The lines that nginx writes about its answers are counted once, and do not pile up."""

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
    found = counted(answers)
    assert {key[1]: value for key, value in found.items() if key[0] == "requests_total" and value} == {
        "200": 3,
        "429": 1,
        "499": 1,
        "503": 1,
    }
    assert [found["seconds_bucket", bound] for bound in ("0.001", "0.0025", "0.005", "30.0", "+Inf")] == [3, 3, 5, 5, 6]
    assert found["seconds_count",] == 6
    assert found["seconds_sum",] == pytest.approx(31.507)


def test_failures_are_there_before_the_first(path):
    found = counted(GatewayAnswers(path))
    assert found["requests_total", "503"] == 0


def test_empties_the_file_and_counts_nothing_twice(path):
    answers = GatewayAnswers(path)
    answers.count()
    for turn in range(1, 4):
        # As nginx does, in pieces that end anywhere.
        write(path, "200 0.0")
        answers.count()
        write(path, "01\n200 0.002\n")
        answers.count()
        assert counted(answers)["requests_total", "200"] == 2 * turn
        assert path.read_text() == ""


def test_a_file_that_cannot_be_emptied_is_read_on(path, monkeypatch, caplog):
    answers = GatewayAnswers(path)
    opened = type(path).open

    def read_only(self, mode="r", *arguments, **named):
        if "+" in mode:
            raise OSError(30, "Read-only file system")
        return opened(self, mode, *arguments, **named)

    for turn in range(1, 3):
        write(path, "200 0.001\n")
        with monkeypatch.context() as patch:
            patch.setattr(type(path), "open", read_only)
            answers.count()
        assert counted(answers)["requests_total", "200"] == turn
    assert caplog.text.count("cannot be emptied") == 1
    # And when somebody else empties it, from its start.
    path.write_text("")
    write(path, "200 0.001\n")
    answers.count()
    assert counted(answers)["requests_total", "200"] == 3


def test_leaves_out_what_is_no_line_of_the_gateways(path, caplog):
    write(path, "200 0.001\nrubbish\n\n200 x\n")
    answers = GatewayAnswers(path)
    answers.count()
    assert counted(answers)["requests_total", "200"] == 1
    assert "none of the gateway's" in caplog.text
