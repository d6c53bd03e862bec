"""Polling ends in time."""

from serving import polling


def test_polling_ends_when_the_condition_holds_or_the_time_is_over():
    answers = iter([False, False, True])
    assert polling.wait_until(lambda: next(answers), 10)
    assert not polling.wait_until(lambda: False, 0)
