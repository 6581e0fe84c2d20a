"""Room on nodes: how many trainings fit, with fractions, and how those that are wanted are spread."""

import pytest

from sweeps.cluster.shares import Need, spread


@pytest.mark.parametrize(
    ("need", "node", "slots"),
    [
        (Need(None, 0), (8, 0), 8),
        (Need(2, 0), (8, 0), 4),
        (Need(3, 0), (8, 0), 2),
        (Need(0.1, 0), (1, 0), 10),
        (Need(None, 1), (8, 4), 4),
        (Need(None, 0.25), (8, 2), 8),
        (Need(4, 0.25), (8, 2), 2),
        (Need(None, 2), (8, 3), 1),
        (Need(None, 1), (8, 0), 0),
        (Need(16, 0), (8, 0), 0),
    ],
)
def test_a_node_has_as_many_slots_as_its_cpus_and_gpus_allow(need, node, slots):
    assert need.slots(*node) == slots


def test_trainings_share_the_cpus_of_a_node_with_gpus_unless_told():
    assert Need(None, 1).cpus_each(64, 8) == 8
    assert Need(None, 0.5).cpus_each(64, 8) == 4
    assert Need(2, 1).cpus_each(64, 8) == 2
    assert Need(None, 0).cpus_each(64, 8) == 1


def test_a_need_is_shown_in_words():
    assert [str(need) for need in (Need(None, 0), Need(2, 0.5), Need(None, 1))] == [
        "1 CPU",
        "2 CPUs and 0.5 GPUs",
        "1 GPU",
    ]


def test_all_nodes_are_filled_unless_fewer_trainings_are_wanted():
    assert spread({"one": 2, "two": 4, "three": 0}, None) == {"one": 2, "two": 4}
    assert spread({"one": 2, "two": 4}, 100) == {"one": 2, "two": 4}
    assert spread({}, 3) == spread({"one": 2}, 0) == spread({"one": 2}, -1) == {}


def test_the_trainings_that_are_wanted_are_spread_evenly():
    assert spread({"one": 8, "two": 8, "three": 1}, 7) == {"one": 3, "two": 3, "three": 1}
