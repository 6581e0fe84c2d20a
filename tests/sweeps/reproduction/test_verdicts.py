"""Each rule says what its docstring says, on numbers that are known."""

import pytest
from scipy import stats

from pipelines.tracking.store import StoredRun
from sweeps.reproduction.claims import Claim
from sweeps.reproduction.verdicts import Certain, Evidence, judge, measure, plain

FIVE = {"0": 0.90, "1": 0.91, "2": 0.92, "3": 0.93, "4": 0.94}  # mean 0.92, sd 0.0158
HIGHER = {seed: value + 0.03 + 0.001 * int(seed) for seed, value in FIVE.items()}
NOISY = {"0": 0.93, "1": 0.89, "2": 0.95, "3": 0.91, "4": 0.93}


def verdict(rule, terms, values=None, *, parameters=0, theory=None, **more):
    evidence = Evidence(lambda term: (values or {}).get(term, {}), lambda label: parameters, lambda name: theory)
    return judge(Claim("it is so", more.pop("question", False), rule, terms, **more), evidence)


def prediction_interval(values):
    n, mean, sd = len(values), sum(values) / len(values), stats.tstd(values)
    half = stats.t.ppf(0.975, n - 1) * sd * (1 + 1 / n) ** 0.5
    return mean - half, mean + half


@pytest.mark.parametrize(("off", "word"), [(-0.2, "confirmed"), (-0.0001, "confirmed"), (0.0001, "not confirmed")])
def test_an_accuracy_is_confirmed_up_to_the_upper_end_of_the_prediction_interval(off, word):
    _, high = prediction_interval(list(FIVE.values()))
    assert verdict("figure", ["a test/acc", high + off], {"a test/acc": FIVE}).word == word


@pytest.mark.parametrize(("off", "word"), [(0.2, "confirmed"), (0.0001, "confirmed"), (-0.0001, "not confirmed")])
def test_a_loss_is_confirmed_down_to_the_lower_end(off, word):
    low, _ = prediction_interval(list(FIVE.values()))
    assert verdict("figure", ["a test/loss", low + off], {"a test/loss": FIVE}).word == word


def test_a_figure_that_ours_leaves_behind_is_confirmed_and_said_to_be_left_behind():
    found = verdict("figure", ["a test/acc", 0.5], {"a test/acc": FIVE})
    assert found.word == "confirmed"
    assert "ours is better" in found.ours


def test_one_run_is_no_evidence_of_a_figure_or_a_difference():
    single = {"a m": {"0": 0.9}, "b m": {"0": 0.1}}
    for rule, terms in (("figure", ["a m", 0.1]), ("greater", ["a m", "b m"]), ("same", ["a m", "b m", 1.0])):
        assert verdict(rule, terms, single).word == "not judged"


@pytest.mark.parametrize(
    ("one", "two", "word", "said"),
    [
        (HIGHER, FIVE, "confirmed", "difference +0.03"),
        (FIVE, HIGHER, "not confirmed", "the other way round"),
        (NOISY, FIVE, "not confirmed", "within the noise"),
    ],
)
def test_greater_needs_an_interval_of_the_paired_difference_above_zero(one, two, word, said):
    found = verdict("greater", ["a m", "b m"], {"a m": one, "b m": two})
    assert (found.word, said in found.ours) == (word, True)


def test_greater_by_so_much_needs_so_much():
    values = {"a m": HIGHER, "b m": FIVE}  # 0.032 apart
    assert verdict("greater", ["a m", "b m", 0.031], values).word == "confirmed"
    assert verdict("greater", ["a m", "b m", 0.033], values).word == "not confirmed"


def test_not_greater_is_what_is_not_clearly_greater():
    assert verdict("not_greater", ["a m", "b m"], {"a m": NOISY, "b m": FIVE}).word == "confirmed"
    assert verdict("not_greater", ["a m", "b m"], {"a m": HIGHER, "b m": FIVE}).word == "not confirmed"


def test_the_same_is_an_interval_inside_the_tolerance_and_not_a_difference_that_noise_hides():
    values = {"a m": HIGHER, "b m": FIVE, "c m": NOISY}
    assert verdict("same", ["a m", "b m", 0.05], values).word == "confirmed"
    assert verdict("same", ["a m", "b m", 0.01], values).word == "not confirmed"
    assert verdict("same", ["c m", "b m", 0.01], values).word == "not confirmed"


def test_bounds_hold_for_every_seed():
    values = {"a m": FIVE}
    assert verdict("at_least", ["a m", 0.90], values).word == "confirmed"
    assert verdict("at_least", ["a m", 0.905], values).word == "not confirmed"
    assert verdict("at_most", ["a m", 0.94], values).word == "confirmed"
    assert verdict("at_most", ["a m", 0.935], values).word == "not confirmed"
    assert verdict("between", ["a m", 0.9, 0.94], values).word == "confirmed"
    assert verdict("between", ["a m", 0.9, 0.93], values).word == "not confirmed"


def test_a_wrong_count_is_corrected_and_the_true_one_is_said():
    assert verdict("count", ["a", 100], parameters=100).word == "confirmed"
    found = verdict("count", ["a", 90], parameters=100, because="a bias was left out")
    assert (found.word, found.true) == ("corrected", "100: a bias was left out")


def test_a_refuted_reason_is_corrected():
    values = {"a m": HIGHER, "b m": FIVE}
    found = verdict("same", ["a m", "b m", 0.05], values, refutes=True, because="it is the average")
    assert (found.word, found.true) == ("corrected", "it is the average")
    assert verdict("same", ["a m", "b m", 0.01], values, refutes=True).word == "not confirmed"


def test_a_theory_is_as_good_as_its_tests():
    assert verdict("theory", ["test_x.py"], theory=True).word == "confirmed"
    assert verdict("theory", ["test_x.py"], theory=False).word == "not confirmed"
    assert verdict("theory", ["test_x.py"], theory=None).word == "not judged"
    assert verdict("theory", ["test_x.py"], theory=True, corrects=True).word == "corrected"


def test_questions_have_answers():
    values = {"a m": HIGHER, "b m": FIVE, "c m": NOISY}
    asked = [
        verdict("greater", [one, two], values, question=True).word for one, two in (("a m", "b m"), ("b m", "a m"))
    ]
    assert asked == ["yes", "no"]
    assert verdict("greater", ["c m", "b m"], values, question=True).word == "open"


def test_what_is_not_there_and_what_other_data_cannot_show_is_not_judged():
    assert verdict("figure", ["a m", 0.5]).word == "not judged"
    assert verdict("figure", ["a m", 0.5], {"a m": FIVE}, judged=False).word == "not judged"
    found = verdict("not_judged", ["no curve of single batches is kept"])
    assert (found.word, found.ours) == ("not judged", "no curve of single batches is kept")


def test_a_method_without_chance_is_one_value_beside_the_seeds_of_another():
    values = {"a m": FIVE, "pca m": Certain(dict.fromkeys(FIVE, 0.5))}
    found = verdict("greater", ["a m", "pca m"], values)
    assert found.word == "confirmed"
    assert "0.5000; difference" in found.ours  # and no n = 5


def test_what_is_made_of_metrics():
    metrics = {"selected/train/acc": 0.9, "test/acc": 0.95, "fit_seconds": 7.38905609893065}
    run = StoredRun(None, "r", "", "", "", "", "FINISHED", 0, {}, metrics, {})
    curve = {
        "val/loss": [(2, 0.6), (0, 0.9), (1, 0.5), (3, 0.8)],
        "val/acc": list(enumerate([0.1, 0.9, 0.5, 0.6, 0.4])),
    }

    def of(metric):
        return measure(run, metric, lambda run_id, name: curve.get(name, []))

    assert of("test/acc") == 0.95
    assert of("gap(acc)") == pytest.approx(-0.05)
    assert of("apart(acc)") == pytest.approx(0.05)
    assert of("log(fit_seconds)") == pytest.approx(2)
    assert of("val/loss@0") == 0.9
    assert of("rise(val/loss)") == pytest.approx(0.3)
    assert of("roughness(val/acc)") == pytest.approx((0.4 + 0.1 + 0.2) / 3)
    missing = ("no/such", "gap(loss)", "log(none)", "val/loss@9", "rise(none)", "roughness(none)")
    assert [of(metric) for metric in missing] == [None] * 6


def test_figures_are_shown_with_as_many_places_as_they_need():
    assert [plain(value) for value in (0.98436, 2e-12, 53.04, 1191170, 0)] == [
        "0.9844",
        "2.0e-12",
        "53.0",
        "1,191,170",
        "0.0000",
    ]
