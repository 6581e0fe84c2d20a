"""What was published is written down completely: every experiment, every rule, every command."""

import pytest

from pipelines.config.cli import parse_config
from pipelines.config.experiments import experiment_names
from pipelines.runtime.errors import UserError
from sweeps.reproduction import claims as published
from sweeps.reproduction import measurements as evidence
from sweeps.reproduction.verdicts import measure

# The ids of shared/EXPERIMENTS.md, and where litlab has them.
EXPERIMENTS = [
    "deep-mnist",
    "deep-mnist-linear",
    "one-conv",
    "small-deep-mnist",
    "deep-mnist-250",
    "deep-mnist-250-reduced",
    "deep-mnist-250-dropout",
    "paired-digits",
    "mnist-linear",
    "mnist-mlp-narrow",
    "mnist-mlp",
    "mnist-convnet",
    "mnist-mlp-dropout",
    "functions-linear",
    "functions-convnet",
    "autoencoder",
    "autoencoder-relu-code",
    "pca",
    "circles",
    "circles-stages",
    "circles-learning-rate",
    "circles-batch-size",
    "circles-svm",
    "cifar-base",
    "cifar-standardised",
    "cifar-zca",
    "cifar-augmented",
    "cifar-scheduled",
    "cifar-optimisers",
    "cifar-dropout",
    "cifar-batchnorm",
    "cifar-batch-size",
    "first-epoch",
    "initialisation",
    "losses",
    "activations",
    "pooling",
    "theory",
    "maximisation",
    "fourier-prior",
    "adversarial",
    "occlusion",
]


@pytest.fixture(scope="module")
def full():
    return published.read("full")


def claims(plan):
    return [claim for section in plan.sections for one in section.experiments for claim in one.claims]


def test_every_published_experiment_is_there(full):
    assert published.names(full) == EXPERIMENTS


def test_every_experiment_that_litlab_has_for_the_reports_is_run_by_one_of_them(full):
    own = {"digits-mlp", "digits-convnet", "cifar-resnet9", "autoencoder-sgd", "autoencoder-convolutional"}
    run = {job.arguments[0] for job in full.jobs.values() if job.verb == "fit"}
    assert set(experiment_names()) - run <= own


def test_both_tiers_have_the_same_claims_and_jobs(full):
    quick = published.read("quick")
    assert [claim.text for claim in claims(quick)] == [claim.text for claim in claims(full)]
    assert list(quick.jobs) == list(full.jobs)


def test_the_full_tier_judges_all_claims_and_the_quick_one_no_figure_of_other_data(full):
    assert all(claim.judged for claim in claims(full))
    of_digits = [section for section in published.read("quick").sections if "instead of" in section.about]
    judged = [claim for section in of_digits for one in section.experiments for claim in one.claims if claim.judged]
    assert judged
    assert not any(claim.rule == "figure" for claim in judged)


def test_the_quick_tier_reads_no_files_of_data():
    plan = published.read("quick")
    sources = {
        parse_config("fit", job.arguments).resolved()["data"]["class_path"]
        for job in plan.jobs.values()
        if job.verb == "fit"
    }
    downloads = {"datamodules.mnist.MNIST", "datamodules.cifar10.CIFAR10", "datamodules.image_folder.ImageFolder"}
    assert not sources & downloads


def test_every_command_is_understood(full):
    for plan in (full, published.read("quick")):
        known = evidence.look(plan.jobs.values())
        assert len({one.hash for one in known.values()}) == len(plan.jobs)


def test_every_metric_of_a_claim_is_one_that_can_be_measured(full):
    for claim in claims(full):
        for term in claim.terms:
            if isinstance(term, str) and claim.labels:
                label, metric = term.split()
                assert label in full.jobs
                run = published_run()
                assert measure(run, metric, lambda run_id, name: [(0, 0.5), (19, 0.5)]) is not None, term


def published_run():
    from pipelines.tracking.store import StoredRun

    class Everything(dict[str, float]):
        def get(self, key, default=None):
            return 0.5

        def __getitem__(self, key):
            return 0.5

    return StoredRun(None, "r", "", "", "", "", "FINISHED", 0, {}, Everything(), {})


def test_a_choice_takes_the_jobs_that_its_claims_need():
    plan = published.read("quick", ["deep-mnist-250-reduced"])
    assert published.names(plan) == ["deep-mnist-250-reduced"]
    assert list(plan.jobs) == ["deep-mnist-250", "deep-mnist-250-reduced"]


def test_an_unknown_id_names_the_near_one():
    with pytest.raises(UserError, match="did you mean mnist-mlp"):
        published.read("quick", ["mnist-mpl"])


def test_a_jobs_own_keys_win_over_its_tiers():
    job = published.read("quick").jobs["deep-mnist"]
    assert job.arguments[job.arguments.index("--trainer.max_epochs") + 1] == "4"
    assert job.arguments.count("--trainer.max_epochs") == 1
    assert "--data" not in job.as_published
