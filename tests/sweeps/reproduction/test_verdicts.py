"""Each rule does what `verdicts` documents, on known numbers."""

import pytest
from scipy import stats

from pipelines.tracking.store import StoredRun
from sweeps.reproduction.claims import Claim
from sweeps.reproduction.measurements import Deterministic, Measurements, metric_value
from sweeps.reproduction.verdicts import format_number, judge

FIVE = {"0": 0.90, "1": 0.91, "2": 0.92, "3": 0.93, "4": 0.94}  # mean 0.92, sd 0.0158
HIGHER = {seed: value + 0.03 + 0.001 * int(seed) for seed, value in FIVE.items()}
NOISY = {"0": 0.93, "1": 0.89, "2": 0.95, "3": 0.91, "4": 0.93}


def verdict(rule, terms, values=None, *, parameters=0, theory=None, **claim):
    measurements = Measurements(lambda term: (values or {}).get(term, {}), lambda label: parameters, theory or {})
    return judge(Claim("the claim", rule, terms, **claim), measurements)


def prediction_interval(values):
    n, mean, sd = len(values), sum(values) / len(values), stats.tstd(values)
    half = stats.t.ppf(0.975, n - 1) * sd * (1 + 1 / n) ** 0.5
    return mean - half, mean + half


@pytest.mark.parametrize(("off", "word"), [(-0.2, "confirmed"), (-0.0001, "confirmed"), (0.0001, "not confirmed")])
def test_an_accuracy_is_confirmed_up_to_the_upper_end_of_the_prediction_interval(off, word):
    _, high = prediction_interval(list(FIVE.values()))
    assert verdict("value", ["a test/acc", high + off], {"a test/acc": FIVE}).word == word


@pytest.mark.parametrize(("off", "word"), [(0.2, "confirmed"), (0.0001, "confirmed"), (-0.0001, "not confirmed")])
def test_a_loss_is_confirmed_down_to_the_lower_end(off, word):
    low, _ = prediction_interval(list(FIVE.values()))
    assert verdict("value", ["a test/loss", low + off], {"a test/loss": FIVE}).word == word


def test_a_value_that_ours_exceeds_is_confirmed_and_ours_is_reported_as_better():
    result = verdict("value", ["a test/acc", 0.5], {"a test/acc": FIVE})
    assert result.word == "confirmed"
    assert result.result.endswith("; ours is better")


def test_one_run_confirms_neither_a_value_nor_a_difference():
    single = {"a m": {"0": 0.9}, "b m": {"0": 0.1}}
    for rule, terms in (("value", ["a m", 0.1]), ("greater", ["a m", "b m"]), ("same", ["a m", "b m", 1.0])):
        assert verdict(rule, terms, single).word == "not judged"


@pytest.mark.parametrize(
    ("one", "two", "word", "text"),
    [
        (HIGHER, FIVE, "confirmed", "difference +0.03"),
        (FIVE, HIGHER, "not confirmed", "the opposite holds"),
        (NOISY, FIVE, "not confirmed", "within noise"),
    ],
)
def test_greater_needs_an_interval_of_the_paired_difference_above_zero(one, two, word, text):
    result = verdict("greater", ["a m", "b m"], {"a m": one, "b m": two})
    assert (result.word, text in result.result) == (word, True)


def test_greater_by_c_needs_a_mean_difference_of_c():
    values = {"a m": HIGHER, "b m": FIVE}  # 0.032 apart
    assert verdict("greater", ["a m", "b m", 0.031], values).word == "confirmed"
    assert verdict("greater", ["a m", "b m", 0.033], values).word == "not confirmed"


def test_not_greater_is_confirmed_unless_it_is_clearly_greater():
    assert verdict("not_greater", ["a m", "b m"], {"a m": NOISY, "b m": FIVE}).word == "confirmed"
    assert verdict("not_greater", ["a m", "b m"], {"a m": HIGHER, "b m": FIVE}).word == "not confirmed"


def test_same_needs_the_interval_within_the_tolerance_not_just_a_difference_within_noise():
    values = {"a m": HIGHER, "b m": FIVE, "c m": NOISY}
    assert verdict("same", ["a m", "b m", 0.05], values).word == "confirmed"
    assert verdict("same", ["a m", "b m", 0.01], values).word == "not confirmed"
    assert verdict("same", ["c m", "b m", 0.01], values).word == "not confirmed"


def test_bounds_must_hold_for_every_seed():
    values = {"a m": FIVE}
    assert verdict("at_least", ["a m", 0.90], values).word == "confirmed"
    assert verdict("at_least", ["a m", 0.905], values).word == "not confirmed"
    assert verdict("at_most", ["a m", 0.94], values).word == "confirmed"
    assert verdict("at_most", ["a m", 0.935], values).word == "not confirmed"
    assert verdict("between", ["a m", 0.9, 0.94], values).word == "confirmed"
    assert verdict("between", ["a m", 0.9, 0.93], values).word == "not confirmed"


def test_a_wrong_count_is_corrected_and_the_right_one_is_given():
    assert verdict("count", ["a", 100], parameters=100).word == "confirmed"
    result = verdict("count", ["a", 90], parameters=100, correction="a bias was left out")
    assert (result.word, result.correction) == ("corrected", "100: a bias was left out")


def test_a_refuted_reason_is_corrected():
    values = {"a m": HIGHER, "b m": FIVE}
    result = verdict("same", ["a m", "b m", 0.05], values, refutes=True, correction="it is the average")
    assert (result.word, result.correction) == ("corrected", "it is the average")
    assert verdict("same", ["a m", "b m", 0.01], values, refutes=True).word == "not confirmed"


def test_theory_is_judged_by_its_tests():
    assert verdict("theory", ["test_x.py"], theory={"test_x.py": True}).word == "confirmed"
    assert verdict("theory", ["test_x.py"], theory={"test_x.py": False}).word == "not confirmed"
    assert verdict("theory", ["test_x.py"], theory={}).word == "not judged"
    assert verdict("theory", ["test_x.py"], theory={"test_x.py": True}, corrects=True).word == "corrected"


def test_questions_are_answered_yes_no_or_open():
    values = {"a m": HIGHER, "b m": FIVE, "c m": NOISY}
    asked = [
        verdict("greater", [one, two], values, is_question=True).word for one, two in (("a m", "b m"), ("b m", "a m"))
    ]
    assert asked == ["yes", "no"]
    assert verdict("greater", ["c m", "b m"], values, is_question=True).word == "open"


def test_claims_without_runs_or_on_other_data_are_not_judged():
    assert verdict("value", ["a m", 0.5]).word == "not judged"
    assert verdict("value", ["a m", 0.5], {"a m": FIVE}, is_judged=False).word == "not judged"
    result = verdict("not_judged", ["no curve of single batches is recorded"])
    assert (result.word, result.result) == ("not judged", "no curve of single batches is recorded")


def test_a_deterministic_method_is_one_value_that_is_paired_with_every_seed():
    values = {"a m": FIVE, "pca m": Deterministic(dict.fromkeys(FIVE, 0.5))}
    result = verdict("greater", ["a m", "pca m"], values)
    assert result.word == "confirmed"
    assert "0.5000; difference" in result.result  # and no n = 5


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
