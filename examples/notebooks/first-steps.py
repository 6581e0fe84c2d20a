# %% [markdown]
# # First steps
#
# This notebook trains a small network on handwritten digits, looks at what it has learned, and changes one setting. It
# needs no download: the digits come with scikit-learn. Each run takes a few seconds.

# %%
import litlab

# %% [markdown]
# ## Train
#
# An **experiment** is a YAML file that names the data, the model and the number of epochs. `digits-mlp` is one that
# comes with litlab. `fit` trains it and shows one line per epoch: the loss and the accuracy on the training data
# (`train`) and on validation data (`val`), which the network does not learn from.

# %%
run = litlab.fit("digits-mlp", overrides={"trainer.max_epochs": 8}, seed=0)

# %% [markdown]
# ## The result
#
# The weights of the epoch that was best on the validation data are kept and measured once on the test data. That is
# `test/acc`: the share of digits that the network reads correctly, among those that played no part in the training.

# %%
run

# %%
run.metrics["test/acc"]

# %% [markdown]
# ## What happened during the training
#
# `history` has a row for each epoch. If the validation loss rises while the training loss still falls, the network
# begins to learn its training examples by heart.

# %%
history = run.history()
history.round(3)

# %%
axes = history[["train/loss", "val/loss"]].plot(ylabel="loss")

# %% [markdown]
# Every run stores figures. The confusion matrix shows which digits are taken for which others: rows are the true
# digits, columns the predictions.

# %%
print(*run.figures)
run.figures["confusion_matrix"]

# %% [markdown]
# ## Change a setting
#
# Every argument of the data, the model and the trainer is a **key**. `run.config` has all of them with their values.

# %%
run.config["model"]

# %% [markdown]
# `overrides` gives a key another value. Here the network gets a single hidden layer with 16 units.

# %%
smaller = litlab.fit("digits-mlp", overrides={"trainer.max_epochs": 8, "model.hidden": [16]}, seed=0)

# %% [markdown]
# `diff` shows what differs between two runs. The key that was changed is there, and the metrics that followed from it.

# %%
litlab.diff(run, smaller)

# %% [markdown]
# A key that does not exist is an error before anything is trained, and the message names the nearest one.

# %%
try:
    litlab.fit("digits-mlp", overrides={"model.droput": 0.5})
except litlab.UserError as error:
    print(error)

# %% [markdown]
# ## Find it again
#
# Nothing is lost when the notebook is closed. Runs are in a database, `mlflow.db`, beside your project. `runs` lists
# them, the newest first, and `load` returns one: by its id, as `"latest"`, or as the best of an experiment.

# %%
litlab.runs("digits-mlp")[["name", "status", "selected", "test"]]

# %%
litlab.load("best:digits-mlp") == run

# %% [markdown]
# `litlab.ui()` opens all runs in the browser, and `litlab fit digits-mlp` in a shell makes the same run as this
# notebook. Next: `your-own-model`.
