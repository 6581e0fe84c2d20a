"""Sweeps whose failed trials are trained again, and whose study others write to."""

import optuna
import pytest
import yaml
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial


def _study(uri: str) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=uri.replace("mlflow.db", "optuna.db"))


def test_retry_failed_trains_again_only_the_seeds_that_failed_and_each_counts_once(
    litlab, moody, results, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    space = {"model.mood": ["unlucky", "fine"]}
    options = "--model.slow", "1e-6"  # the second seed is unlucky
    sweep = "sweep", "-c", moody(space, seeds=2), *options
    first = litlab(*sweep)
    assert first.code == 0, first.err
    assert "1 of the trials failed; the same command with --retry_failed trains them again" in first.out
    assert sorted(results.states) == ["COMPLETE", "FAIL"]
    n_runs = len(results.children())
    assert n_runs == 4

    (tmp_path / "lucky").touch()  # the bug is mended
    again = litlab(*sweep)
    assert (again.code, len(results.children())) == (0, n_runs), "without the option, nothing is trained"
    retried = litlab(*sweep, "--retry_failed")
    assert retried.code == 0, retried.err
    assert "failed trials queued again: 1" in retried.out + retried.err
    assert "failed; the same command" not in retried.out
    assert len(results.children()) == n_runs + 1, "only seed 1"
    status = yaml.safe_load(litlab("sweep", "status", "study", "--json").out)
    assert status["trials"]["complete"] == status["total"] == 2
    assert status["trials"]["failed"] == 0
    assert status["failed"] == []
    assert results.parent.data.metrics["trials/complete"] == 2
    assert results.parent.data.metrics["trials/failed"] == 0
    finished = [run.data.tags for run in results.children() if run.info.status == "FINISHED"]
    assert len({(tags["configuration"], tags["seed"]) for tags in finished}) == len(finished) == 4
    best = results.parent.data.tags["best.run"]
    assert "checkpoints/best.ckpt" in results.files(results.client.get_run(best))

    nothing = litlab(*sweep, "--retry-failed")
    assert nothing.code == 0
    assert "failed trials queued again: 0" in nothing.out + nothing.err
    assert len(results.children()) == n_runs + 1


@pytest.mark.slow
def test_a_trial_added_from_outside_leaves_best_status_and_the_sweep_usable(litlab, moody, results, uri):
    space = {"model.score": {"low": 0.2, "high": 0.8}}
    sweep = "sweep", "-c", moody(space, trials=2, sampler="random")
    assert litlab(*sweep).code == 0
    ranges = {"model.score": FloatDistribution(0.2, 0.8)}
    _study(uri).add_trial(create_trial(params={"model.score": 0.7}, distributions=ranges, value=0.99))
    _study(uri).enqueue_trial({"model.score": 7})

    best = litlab("sweep", "best", "study")
    assert best.code == 0, best.err
    assert yaml.safe_load(best.out)["model"]["init_args"]["score"] < 0.9
    assert "another program added them to the study: better trials 2" in best.err
    continued = litlab(*sweep, "--trials", "3")
    assert continued.code == 0, continued.err
    assert "model.score is 7; it must be a number from 0.2 to 0.8" in continued.err
    status = yaml.safe_load(litlab("sweep", "status", "study", "--json").out)
    assert status["trials"] == {
        "complete": 3,
        "pruned": 0,
        "failed": 0,
        "running": 0,
        "interrupted": 0,
        "not in the space": 1,
        "of other programs": 1,
    }
    assert [trial["reason"] for trial in status["failed"]] == ["model.score is 7; it must be a number from 0.2 to 0.8"]
    assert len(results.children()) == 3


def test_a_sweep_adopts_queued_points_of_others_and_refuses_their_trials(litlab, moody, uri):
    url = uri.replace("mlflow.db", "optuna.db")
    sweep = "sweep", "-c", moody({"model.score": {"low": 0.2, "high": 0.8}}, trials=2, sampler="random")
    for name in ("study", "other"):
        made = optuna.create_study(study_name=name, storage=url, direction="maximize")
        made.set_user_attr("mine", "my notes")
        made.enqueue_trial({"model.score": 0.25})
    optuna.load_study(study_name="other", storage=url).add_trial(create_trial(value=0.5))
    refused = litlab(*sweep, "--study", "other")
    assert (refused.code, "--study OTHER" in refused.err) == (2, True)
    assert litlab(*sweep).code == 0
    study = _study(uri)
    assert study.user_attrs["mine"] == "my notes"
    assert study.trials[0].params == {"model.score": 0.25}
    assert len(study.trials) == 2


def test_a_queued_point_of_the_space_that_the_module_refuses_fails_alone(litlab, moody, results, uri, tmp_path):
    sweep = "sweep", "-c", moody({"model.slow": {"low": 0.0, "high": 1e-6}}, trials=2, sampler="random")
    module = tmp_path / "moody.py"
    refusal = '        if slow == 5e-7:\n            raise ValueError("slow must not be half of it")\n'
    module.write_text(module.read_text().replace("        self.mood,", f"{refusal}        self.mood,", 1))
    made = optuna.create_study(study_name="study", storage=uri.replace("mlflow.db", "optuna.db"), direction="maximize")
    made.enqueue_trial({"model.slow": 5e-7})
    done = litlab(*sweep)
    assert done.code == 0, done.err
    failed, complete = _study(uri).trials
    assert failed.state.name == "FAIL"
    assert "slow must not be half of it" in failed.user_attrs["reason"]
    assert complete.state.name == "COMPLETE"
    assert len(results.children()) == 1
