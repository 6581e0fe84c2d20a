# %% [markdown]
# # Compare and sweep
#
# Is a setting better, or was it luck? This notebook trains two configurations with several seeds, compares them, and
# then searches for a better one.

# %%
from pathlib import Path

import litlab

# %% [markdown]
# To be quick, all networks of this notebook learn from 400 digits, for 5 epochs.

# %%
short = {"data.n_train": 400, "trainer.max_epochs": 5}

# %% [markdown]
# ## Several seeds
#
# The seed determines the first weights and the order of the examples. With another seed, the same configuration reaches
# another accuracy. `seeds=3` trains it three times. The run that is returned summarises them: mean ± standard
# deviation.

# %%
normal = litlab.fit("digits-mlp", overrides=short, seeds=3)
normal

# %%
[child.metrics["test/acc"] for child in normal.children]

# %% [markdown]
# The second configuration has no dropout and a higher learning rate.

# %%
changes = {"model.dropout": 0.0, "model.optimizer.lr": 0.003}
changed = litlab.fit("digits-mlp", overrides={**short, **changes}, seeds=3)

# %% [markdown]
# ## Compare
#
# `compare` returns a DataFrame with a row for each configuration, the best first. `mean`, `sd` and `n` are those of the
# test accuracy over the seeds; the columns `params.…` are the keys in which the rows differ.

# %%
table = litlab.compare("digits-mlp")
table[["params.model.dropout", "params.model.optimizer.lr", "mean", "sd", "n"]]

# %% [markdown]
# The difference to the baseline has a 95 % interval. If the interval contains 0, the difference is **within noise**:
# the seeds alone could have made it. Runs with the same seed are compared with each other, which makes the interval
# narrower. With three seeds it is still wide; more seeds make it narrower.

# %%
table[["difference", "difference_ci95_low", "difference_ci95_high", "verdict"]]

# %% [markdown]
# An ordinary DataFrame can be plotted: the mean of each row with its 95 % interval.

# %%
errors = [(table["mean"] - table["ci95_low"]).to_list(), (table["ci95_high"] - table["mean"]).to_list()]
axes = table["mean"].plot(yerr=errors, marker="o", linestyle="", ylabel="test accuracy", xticks=[*table.index])

# %% [markdown]
# ## Sweep
#
# A **space** says which keys to search and in which ranges. It is a short YAML file.

# %%
space = """
experiment: digits-mlp
metric: val/loss
space:
  model.optimizer.lr: {low: 0.001, high: 0.03, log: true}
  model.hidden: [[16], [64], [128, 64]]
"""

# %% [markdown]
# A sweep asks [Optuna](https://optuna.org) for values, trains with them, and reports the validation loss. The test data
# are not used in the search: whoever picks the best of many trials by its test result picks luck, too.
#
# When the search is over, the best configuration and the unchanged experiment are trained with fresh seeds (`confirm`),
# and only these runs are tested. The same call continues a sweep that was stopped.

# %%
Path("digits-search.yaml").write_text(space)
sweep = litlab.sweep("digits-search.yaml", trials=4, confirm=2, overrides=short)
sweep

# %%
sweep.trials()

# %% [markdown]
# `verdict` says whether the best configuration was better than the unchanged one on the fresh seeds. "Within noise" is
# a common and honest answer, in particular after a search as short as this one.

# %%
print(sweep.verdict)
sweep.best_params
