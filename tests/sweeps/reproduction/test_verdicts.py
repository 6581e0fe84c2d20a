"""Each rule does what `rules` documents, on known numbers."""

import pytest
from scipy import stats

from pipelines.tracking.store import StoredRun
from sweeps.reproduction.claims import UNKNOWN, Claim, Experiment, Plan, Section
from sweeps.reproduction.formatting import format_number
from sweeps.reproduction.measurements import Deterministic, Measurements, metric_value
from sweeps.reproduction.pairing import are_paired
from sweeps.reproduction.published_job import PublishedJob
from sweeps.reproduction.verdicts import judge

FIVE = {"0": 0.90, "1": 0.91, "2": 0.92, "3": 0.93, "4": 0.94}  # mean 0.92, sd 0.0158, interval 0.9004 to 0.9396
HIGHER = {seed: value + 0.03 + 0.001 * int(seed) for seed, value in FIVE.items()}
NOISY = {"0": 0.93, "1": 0.89, "2": 0.95, "3": 0.91, "4": 0.93}
MEAN_HALF, RUN_HALF = (stats.t.ppf(0.975, 4) * stats.tstd(list(FIVE.values())) * (a / 5) ** 0.5 for a in (1, 6))


def make_claim(rule, terms, **settings):
    return Claim("the claim", rule, terms, **{"paired": True, **settings})


def verdicts(claims, values=None, *, seeds=1, parameters=0, theory=None, test_size=None, arguments=("digits-mlp",)):
    labels = {label for claim in claims for label in claim.labels}
    jobs = {label: PublishedJob(label, "fit", list(arguments), list(arguments), seeds=seeds) for label in labels}
    plan = Plan("full", [Section("", "", [], [Experiment("x", "X", [], claims)])], jobs)
    found = values or {}
    measured = Measurements(
        lambda term: found.get(term, {}), lambda label: parameters, theory or {}, lambda label: test_size
    )
    return judge(plan, measured)["x"]


def verdict(rule, terms, values=None, *, parameters=0, theory=None, **claim):
    (result,) = verdicts([make_claim(rule, terms, **claim)], values, parameters=parameters, theory=theory)
    return result


@pytest.mark.parametrize(("margin", "word"), [(MEAN_HALF + 0.001, "reproduced"), (MEAN_HALF - 0.001, "undecided")])
def test_a_value_is_reproduced_if_the_interval_of_the_mean_lies_within_the_margin(margin, word):
    assert verdict("value", ["a test/acc", 0.92], {"a test/acc": FIVE}, margin=margin).word == word


def test_the_margin_is_a_quarter_of_the_published_error_if_none_is_stated():
    close = {seed: 0.92 + (value - 0.92) / 10 for seed, value in FIVE.items()}
    result = verdict("value", ["a test/acc", 0.92], {"a test/acc": close})
    assert (result.word, "margin 0.0200" in result.result) == ("reproduced", True)
    result = verdict("value", ["a test/loss", 0.92], {"a test/loss": close})
    assert (result.word, "margin 0.2300" in result.result) == ("reproduced", True)


@pytest.mark.parametrize(
    ("metric", "off", "word"),
    [
        ("test/acc", RUN_HALF + 0.001, "contradicted"),
        ("test/acc", RUN_HALF - 0.001, "undecided"),
        ("test/acc", -RUN_HALF - 0.001, "exceeded"),
        ("test/acc", -RUN_HALF + 0.001, "undecided"),
        ("test/loss", RUN_HALF + 0.001, "exceeded"),
        ("test/loss", -RUN_HALF - 0.001, "contradicted"),
    ],
)
def test_a_value_outside_the_prediction_interval_is_contradicted_or_exceeded(metric, off, word):
    assert verdict("value", [f"a {metric}", 0.92 + off], {f"a {metric}": FIVE}, margin=0.001).word == word


def test_a_value_within_the_margin_is_not_contradicted_even_outside_the_prediction_interval():
    equal = {seed: 0.92 + 1e-5 * int(seed) for seed in FIVE}
    assert verdict("value", ["a test/acc", 0.925], {"a test/acc": equal}, margin=0.01).word == "reproduced"
    assert verdict("value", ["a test/acc", 0.925], {"a test/acc": equal}, margin=0.004).word == "contradicted"


def test_on_another_test_set_an_accuracy_may_differ_by_the_error_of_both():
    values, terms = {"a test/acc": {seed: 0.92 + 1e-5 * int(seed) for seed in FIVE}}, ["a test/acc", 0.96]

    def word(theirs, ours, arguments=("circles",)):
        claim = make_claim("value", terms, other_test_set=theirs)
        return verdicts([claim], values, test_size=ours, arguments=arguments)[0].word

    assert word(None, 200) == "contradicted"
    # sd 0.0192 of ours and 0.0139 of theirs: 0.04 is 1.7 of both together, 2.9 of theirs alone
    assert word(200, 200) == word(UNKNOWN, 200) == "undecided"
    assert word(200, 200, ("circles", "--data.seed", "{seed}")) == "contradicted"
    assert word(200, 100_000) == "contradicted"


def test_while_planned_runs_are_missing_a_claim_is_not_judged():
    claims = [make_claim("at_least", ["a m", 0.5]), make_claim("greater", ["a m", "b m"], paired=False)]
    values = {"a m": FIVE, "b m": dict(list(FIVE.items())[:2])}
    for seeds, words in ((5, ["reproduced", "not judged"]), (6, ["not judged", "not judged"])):
        assert [result.word for result in verdicts(claims, values, seeds=seeds)] == words
    both = verdicts(claims, values, seeds=6)[1].result
    assert both.endswith("; 5 of 6 runs of a and 2 of 6 runs of b")


def test_one_run_is_not_judged():
    single = {"a m": {"0": 0.9}, "b m": {"0": 0.1}}
    rules = [("value", 0.1), ("at_least", 0.1), ("greater", "b m"), ("same", "b m", 1.0)]
    for rule, *terms in rules:
        result = verdict(rule, ["a m", *terms], single)
        assert (result.word, "one run does not tell the spread" in result.result) == ("not judged", True)


@pytest.mark.parametrize(
    ("one", "two", "word"),
    [(HIGHER, FIVE, "reproduced"), (FIVE, HIGHER, "contradicted"), (NOISY, FIVE, "undecided")],
)
def test_greater_needs_a_difference_beyond_chance(one, two, word):
    assert verdict("greater", ["a m", "b m"], {"a m": one, "b m": two}).word == word


def test_greater_by_c_needs_a_difference_above_c_beyond_chance():
    values = {"a m": HIGHER, "b m": FIVE}  # 0.0320 apart, from 0.0300 to 0.0340
    words = [verdict("greater", ["a m", "b m", size], values).word for size in (0.0295, 0.032, 0.0345)]
    assert words == ["reproduced", "undecided", "contradicted"]


def test_not_greater_needs_a_difference_below_the_margin_beyond_chance():
    values = {"a m": HIGHER, "b m": FIVE, "c m": NOISY}
    words = [verdict("not_greater", ["a m", "b m", margin], values).word for margin in (0.035, 0.032, 0.01)]
    assert words == ["reproduced", "undecided", "contradicted"]
    assert verdict("not_greater", ["c m", "b m", 0.01], values).word == "undecided", "chance is no evidence"


def test_same_needs_an_interval_within_the_margin():
    values = {"a m": HIGHER, "b m": FIVE, "c m": NOISY}
    assert verdict("same", ["a m", "b m", 0.05], values).word == "reproduced"
    assert verdict("same", ["a m", "b m", 0.01], values).word == "contradicted"
    assert verdict("same", ["c m", "b m", 0.01], values).word == "undecided"


def test_p_values_are_adjusted_for_all_comparisons_of_the_page():
    values = {"a m": NOISY, "b m": {seed: value - 0.035 for seed, value in FIVE.items()}}
    lone = make_claim("greater", ["a m", "b m"])
    (alone,) = verdicts([lone], values)
    assert alone.p_value == pytest.approx(stats.ttest_rel(list(NOISY.values()), list(values["b m"].values())).pvalue)
    assert (alone.word, 0.02 < alone.p_value < 0.05) == ("reproduced", True)
    first, *_ = verdicts([lone, *[make_claim("greater", ["a m", "c m"])] * 3], values | {"c m": NOISY | {"0": 0.94}})
    assert first.word == "undecided"
    assert f"adjusted p = {4 * alone.p_value:.2g}" in first.result


def test_bounds_must_hold_for_the_whole_interval_of_the_mean():
    values = {"a m": FIVE}  # 0.9004 to 0.9396
    cases = [
        ("at_least", [0.90], "reproduced"),
        ("at_least", [0.91], "undecided"),
        ("at_least", [0.94], "contradicted"),
        ("at_most", [0.94], "reproduced"),
        ("at_most", [0.93], "undecided"),
        ("at_most", [0.90], "contradicted"),
        ("between", [0.9, 0.94], "reproduced"),
        ("between", [0.9, 0.93], "undecided"),
        ("between", [0.8, 0.9], "contradicted"),
    ]
    assert [verdict(rule, ["a m", *limits], values).word for rule, limits, _ in cases] == [word for *_, word in cases]


def test_a_value_without_spread_is_judged_as_it_is_also_on_the_bound():
    values = {"a m": dict.fromkeys(FIVE, 1.0), "svm m": Deterministic({"0": 0.51})}
    assert verdict("at_most", ["a m", 1], values).word == "reproduced"
    assert verdict("at_least", ["svm m", 0.52], values).word == "contradicted"
    assert verdict("greater", ["a m", "a m"], values).word == "contradicted", "equal values are not greater"
    assert verdict("same", ["a m", "a m", 0.0], values).word == "reproduced"


def test_a_wrong_count_is_corrected_and_the_right_one_is_given():
    assert verdict("count", ["a", 100], parameters=100).word == "reproduced"
    result = verdict("count", ["a", 90], parameters=100, correction="a bias was left out")
    assert (result.word, result.correction) == ("corrected", "100: a bias was left out")


def test_a_refuted_reason_is_corrected_or_else_undecided():
    values = {"a m": HIGHER, "b m": FIVE}
    result = verdict("same", ["a m", "b m", 0.05], values, refutes=True, correction="it is the average")
    assert (result.word, result.correction) == ("corrected", "it is the average")
    for margin in (0.032, 0.01):
        result = verdict("same", ["a m", "b m", margin], values, refutes=True, correction="it is the average")
        assert (result.word, result.correction) == ("undecided", "")


def test_theory_is_judged_by_its_tests():
    assert verdict("theory", ["test_x.py"], theory={"test_x.py": True}).word == "reproduced"
    assert verdict("theory", ["test_x.py"], theory={"test_x.py": False}).word == "contradicted"
    assert verdict("theory", ["test_x.py"], theory={}).word == "not judged"
    assert verdict("theory", ["test_x.py"], theory={"test_x.py": True}, corrects=True).word == "corrected"


@pytest.mark.parametrize("kind", ["is_question", "is_beyond"])
def test_questions_and_what_no_report_states_are_answered_yes_no_or_undecided(kind):
    values = {"a m": HIGHER, "b m": FIVE, "c m": NOISY}
    pairs = [("a m", "b m"), ("b m", "a m"), ("c m", "b m")]
    words = [verdict("greater", list(pair), values, **{kind: True}).word for pair in pairs]
    assert words == ["yes", "no", "undecided"]
    assert verdict("theory", ["test_x.py"], theory={"test_x.py": True}, **{kind: True}).word == "yes"


def test_claims_without_runs_or_on_other_data_are_not_judged():
    assert verdict("value", ["a m", 0.5]).word == "not judged"
    assert verdict("value", ["a m", 0.5], {"a m": FIVE}, is_judged=False).word == "not judged"
    result = verdict("not_judged", ["no curve of single batches is recorded"])
    assert (result.word, result.result) == ("not judged", "no curve of single batches is recorded")


def test_why_a_result_differs_is_told_only_if_it_does():
    values = {"a m": HIGHER, "b m": FIVE}
    told = [verdict("greater", pair, values, differs="luck").differs for pair in (["a m", "b m"], ["b m", "a m"])]
    assert told == ["", "luck"]


def test_results_have_intervals_and_the_number_of_runs():
    values = {"a test/acc": FIVE, "b test/acc": HIGHER, "pca test/acc": Deterministic(dict.fromkeys(FIVE, 0.5))}
    result = verdict("value", ["a test/acc", 0.92], values).result
    assert result == "0.9200 [0.9004, 0.9396] (n = 5); margin 0.0200; one more run [0.8719, 0.9681]"
    result = verdict("greater", ["b test/acc", "pca test/acc"], values, paired=False).result
    assert " (n = 5) and 0.5000; difference +0.45 [+0.43, +0.47], adjusted p < 0.0001" in result
    result = verdict("at_least", ["b test/acc", 0.5], {"b test/acc": HIGHER | {"0": 0.8}}).result
    assert result.endswith("1.0000] (n = 5); at least 0.5"), "an accuracy is at most 1"
    epochs = {"0": 8.0, "1": 9.0, "2": 10.0}
    result = verdict("between", ["a selected_epoch", 6, 9], {"a selected_epoch": epochs}).result
    assert result == "9.0 [6.5, 11.5] (n = 3); between 6 and 9"


def test_sides_are_paired_that_share_network_initial_weights_and_examples():
    jobs = {
        label: PublishedJob(label, verb, arguments.split(), [], explains)
        for label, verb, arguments, explains in (
            ("net", "fit", "circles", ""),
            ("fast", "fit", "circles --model.optimizer.lr 0.5 --data.batch_size 5", ""),
            ("wide", "fit", "circles --model.hidden [20]", ""),
            ("other", "fit", "digits-mlp", ""),
            ("svm", "baseline", "svm-rbf circles --C 1", ""),
            ("svm-10", "baseline", "svm-rbf circles --C 10", ""),
            ("linear", "baseline", "svm-linear circles --C 1", ""),
            ("maximise", "explain", "maximise", "net"),
            ("fourier", "explain", "maximise --prior fourier", "net"),
        )
    }

    def paired(one, other, **settings):
        return are_paired(Claim("", "greater", [f"{one} m", f"{other} m"], **settings), jobs)

    same = [("net", "net"), ("net", "fast"), ("svm", "svm-10"), ("maximise", "fourier")]
    different = [("net", "wide"), ("fast", "other"), ("net", "svm"), ("svm", "linear"), ("net", "fourier")]
    assert all(paired(*pair) for pair in same)
    assert not any(paired(*pair) for pair in different)
    assert paired("net", "other", paired=True)
    assert not paired("net", "fast", paired=False)


def test_the_result_states_by_how_much_one_is_to_be_greater():
    (result,) = verdicts([make_claim("greater", ["a m", "b m", 0.02])], {"a m": HIGHER, "b m": FIVE})
    assert (result.word, "; by at least 0.02, adjusted p" in result.result) == ("reproduced", True)


def test_a_margin_of_zero_is_no_missing_margin():
    same = dict.fromkeys(FIVE, 0.5)
    result = verdict("value", ["a test/acc", 0.5], {"a test/acc": same}, margin=0)
    assert (result.word, "margin 0.0000" in result.result) == ("reproduced", True)


def test_quantities_are_computed_from_metrics():
    metrics = {"selected/train/acc": 0.9, "test/acc": 0.95, "fit_seconds": 7.38905609893065}
    run = StoredRun(None, "r", "", "", "", "", "FINISHED", 0, {}, metrics, {})
    curve = {
        "val/loss": [(2, 0.6), (0, 0.9), (1, 0.5), (3, 0.8)],
        "val/acc": list(enumerate([0.1, 0.9, 0.5, 0.6, 0.4])),
    }

    def of(metric):
        return metric_value(run, metric, lambda run_id, name: curve.get(name, []))

    assert of("test/acc") == 0.95
    assert of("gap(acc)") == pytest.approx(-0.05)
    assert of("abs_gap(acc)") == pytest.approx(0.05)
    assert of("log(fit_seconds)") == pytest.approx(2)
    assert of("val/loss@0") == 0.9
    assert of("rise(val/loss)") == pytest.approx(0.3)
    assert of("roughness(val/acc)") == pytest.approx((0.4 + 0.1 + 0.2) / 3)
    missing = ("no/such", "gap(loss)", "log(none)", "val/loss@9", "rise(none)", "roughness(none)")
    assert [of(metric) for metric in missing] == [None] * 6


def test_numbers_have_as_many_digits_as_they_need():
    assert [format_number(value) for value in (0.98436, 2e-12, 53.04, 1191170, 0)] == [
        "0.9844",
        "2.0e-12",
        "53.0",
        "1,191,170",
        "0.0000",
    ]
