"""Waiting for a condition."""

from serving import polling


def test_waiting_ends_with_the_condition_or_the_time():
    answers = iter([False, False, True])
    assert polling.wait_until(lambda: next(answers), 10)
    assert not polling.wait_until(lambda: False, 0)
