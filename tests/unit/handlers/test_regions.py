"""Operations on masks."""

import numpy as np

from handlers.inputs import regions


def test_spread_takes_the_largest_value_in_reach():
    values = np.zeros((7, 9), np.float32)
    values[3, 4] = 5
    values[0, 0] = 7
    result = regions.spread(values, 2)
    expected = np.zeros_like(values)
    expected[1:6, 2:7] = 5
    expected[:3, :3] = 7
    np.testing.assert_array_equal(result, expected)
    assert regions.spread(values, 50).min() == 7


def test_connected_follows_bends_but_not_corners():
    drawn = np.array([list("..####"), list("#.#..#"), list("#.#.##"), list("#...#."), list("#####.")])
    mask = drawn == "."
    np.testing.assert_array_equal(regions.connected(mask, regions.edge(mask)), mask)
    walled = np.array([list("######"), list("#.#..#"), list("######"), list(".#.###")]) == "."
    np.testing.assert_array_equal(
        regions.connected(walled, regions.edge(walled)), (np.arange(4) == 3)[:, None] & walled
    )


def test_connected_stays_in_the_part_of_its_start():
    mask = np.array([list("##.##"), list("##.##")]) == "#"
    start = np.zeros_like(mask)
    start[0, 4] = True
    np.testing.assert_array_equal(regions.connected(mask, start), mask & (np.arange(5) > 2))


def test_box_is_the_smallest_around_the_mask():
    mask = np.zeros((7, 9), bool)
    assert regions.box(mask) is None
    mask[2, 3] = mask[5, 4] = True
    assert regions.box(mask) == (3, 2, 5, 6)
