"""Which runs are of one configuration, though their versions knew other keys."""

import json
import time
from itertools import count

from pipelines.comparison.equal_runs import EqualRuns
from pipelines.comparison.rows import group_and_rank
from pipelines.config.known_keys import KnownKeys
from pipelines.tracking.query import RunSelection
from pipelines.tracking.store import StoredRun

STARTED = count()


def run(known=None, seed="0", data=("train", "test"), **params):
    """A run that recorded keys at their defaults, or one of an earlier version."""
    started = next(STARTED)
    tags = {"seed": seed, **{f"data.sha256.{split}": split * 3 for split in data}}
    if known is not None:
        tags |= KnownKeys(**{"default": [], "none": [], "set_none": [], **known}).tags()
    texts = {key.replace("__", "."): text for key, text in params.items()}
    return StoredRun(
        store=None,
        run_id=f"run{started}",
        name="",
        experiment="e",
        experiment_id="1",
        artifact_uri="",
        status="FINISHED",
        started=started,
        params={"model": "m.Net", **texts},
        metrics={"test/acc": 0.5},
        tags=tags,
    )


def groups(*runs, ignored=()):
    """The indices of the runs of each group."""
    numbers = EqualRuns(runs).groups(ignored)
    found = {}
    for index, each in enumerate(runs):
        found.setdefault(numbers[each.run_id], []).append(index)
    return sorted(found.values())


def test_a_key_at_its_default_may_be_missing_and_another_may_not():
    added, given = {"default": ["model.k"]}, {}
    assert groups(run(), run(added, model__k="1")) == [[0, 1]]
    assert groups(run(), run(given, model__k="1")) == [[0], [1]]
    assert groups(run({}), run(added, model__k="1")) == [[0, 1]]
    assert groups(run(model__k="1"), run()) == [[0], [1]], "an earlier run does not say what its defaults are"
    assert groups(run(lr="1"), run(added, lr="2", model__k="1")) == [[0], [1]]


def test_runs_of_a_row_are_equal_pair_by_pair_if_a_default_has_changed():
    known = {"default": ["model.k"]}
    first, before, after = run(), run(known, model__k="1"), run(known, model__k="2")
    for order in ([first, before, after], [after, before, first], [before, after, first]):
        numbers = EqualRuns(order).groups()
        assert numbers[first.run_id] == numbers[before.run_id] != numbers[after.run_id]


def test_none_is_a_value_that_params_do_not_have():
    at_none, chosen = {"none": ["model.k"]}, {"set_none": ["model.k"]}
    half = {"default": ["model.k"]}
    assert groups(run(at_none), run({})) == [[0, 1]]
    assert groups(run(chosen), run({})) == [[0], [1]]
    assert groups(run(at_none), run(half, model__k="0.5")) == [[0], [1]], "the default was changed"
    assert groups(run(chosen), run()) == [[0, 1]], "an earlier run without the key may have None as well"


def test_a_class_that_was_added_with_all_its_arguments_may_be_missing():
    known = {"default": ["model.init", "model.init.scale"]}  # whose argument `mode` is not at its own default
    later = run(known, model__init="i.Init", model__init__scale="1", model__init__mode="in")
    assert groups(run(), later) == [[0, 1]]
    assert groups(run(model__init="i.Init", model__init__scale="1"), later) == [[0], [1]]
    assert groups(run(model__init="i.Init", model__init__mode="in"), later) == [[0, 1]]


def test_callbacks_are_compared_argument_by_argument_and_by_their_old_names():
    def with_callbacks(known, *callbacks):
        return run(known, trainer__callbacks=json.dumps(list(callbacks)))

    old = {"class_path": "modules.probes.Units"}
    new = {"class_path": "modules.probes.DeadUnits", "init_args": {"k": 1}}
    stop = {"class_path": "c.Stop", "init_args": {"patience": 3}}
    known = {"default": ["trainer.callbacks.0.k"]}
    assert groups(with_callbacks(None, old), with_callbacks(known, new)) == [[0, 1]]
    assert groups(with_callbacks(None, old), with_callbacks({}, new)) == [[0], [1]]
    assert groups(with_callbacks(None, old), with_callbacks(known, new, stop), run()) == [[0], [1], [2]]
    first, second = with_callbacks(None, old, stop), with_callbacks(known, new, stop)
    rows = group_and_rank(selection(first, second, run())).rows
    assert sorted(len(row.runs) for row in rows) == [1, 1]
    shown = next(row for row in rows if first in row.runs or second in row.runs)
    assert (shown.repeats, json.loads(shown.configuration["trainer.callbacks"])[1]) == (1, stop)


def test_a_split_that_only_one_run_has_makes_no_difference():
    assert groups(run(data=("train",)), run(data=("train", "test")), run(data=())) == [[0, 1, 2]]
    other = run(data=())
    other.tags["data.sha256.train"] = "other"
    assert groups(run(), other) == [[0], [1]]
    assert groups(run(), other, ignored=("data.sha256",)) == [[0, 1]]
    assert groups(run(lr="1"), run(lr="2"), ignored=("lr",)) == [[0, 1]]


def selection(*runs):
    return RunSelection([], list(runs), None, [], [], None, "")


def test_rows_differ_in_a_key_that_one_lacks_only_if_the_other_has_another_value():
    known = {"default": ["model.k"]}
    old, new, other = run(lr="1"), run(known, lr="2", model__k="1"), run({}, lr="3", model__k="5")
    assert group_and_rank(selection(old, new)).differing == ["lr"]
    comparison = group_and_rank(selection(old, new, other))
    assert comparison.differing == ["lr", "model.k"]
    assert sorted(row.value("model.k") for row in comparison.rows) == ["", "1", "5"]


def test_pairs_by_some_keys_may_lack_a_key_at_its_default():
    known = {"default": ["model.k"]}
    runs = [run(None, seed, lr=lr, size="1") for lr in ("1", "2") for seed in ("0", "1")]
    runs += [run(known, seed, lr=lr, size="2", model__k="1") for lr in ("1", "2") for seed in ("0", "1")]
    rows = group_and_rank(selection(*runs), by=["lr"]).rows
    assert [(row.summary.n, row.configurations) for row in rows] == [(4, 2), (4, 2)]
    assert rows[1].difference is not None
    assert rows[1].difference.n == 4


def test_ten_thousand_runs_of_two_versions_are_grouped_in_seconds():
    known = {"default": ["model.k", "model.k2"]}
    runs = [run(lr=str(lr), seed=str(seed), size=str(lr % 7)) for lr in range(1000) for seed in range(5)]
    runs += [
        run(known, lr=str(lr), seed=str(seed), size=str(lr % 7), model__k="1", model__k2="2")
        for lr in range(1000)
        for seed in range(5, 10)
    ]
    began = time.process_time()
    rows = group_and_rank(selection(*runs)).rows
    assert time.process_time() - began < 10
    assert [row.summary.n for row in rows] == [10] * 1000


def test_class_names_that_an_earlier_version_recorded_are_those_of_the_same_data():
    known, names = {"none": ["data.class_names"]}, '["a", "b"]'
    assert groups(run(known), run({}, **{"data__class_names": names}), run(known)) == [[0, 1, 2]]
    assert groups(run(known, data=()), run({}, data=(), **{"data__class_names": names})) == [[0], [1]]
    assert groups(run({}, **{"data__class_names": '["b", "a"]'}), run({}, **{"data__class_names": names})) == [[0], [1]]
