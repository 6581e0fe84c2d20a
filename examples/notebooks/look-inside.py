# %% [markdown]
# # Look inside
#
# A number such as "97 % correct" does not say what a network has learned. This notebook looks at its mistakes, its
# weights, and the pixels that it depends on.

# %%
import matplotlib.pyplot as plt
import torch

import litlab
from datamodules.digits import Digits

# %%
run = litlab.fit("digits-convnet", overrides={"trainer.max_epochs": 5}, seed=0)

# %% [markdown]
# ## Predictions
#
# `predict` returns a row for each digit of the test set: the class and how sure the network is.

# %%
predictions = litlab.predict(run)
predictions.head()

# %% [markdown]
# The data are those of the experiment. Its test set has the same order as the predictions, so that both can be put side
# by side.

# %%
data = Digits()
images, labels = data.load(train=False)  # pixels from 0 to 255
predictions["true"] = [data.classes[label] for label in labels]
wrong = predictions[predictions["class"] != predictions["true"]]
print(f"{len(wrong)} of {len(predictions)} digits are wrong")
wrong.sort_values("probability", ascending=False).head()

# %% [markdown]
# These are the digits that the network is least sure of. Would you have read them correctly?

# %%
unsure = predictions.nsmallest(6, "probability")
figure, axes = plt.subplots(1, 6, figsize=(9, 2))
for axis, (index, row) in zip(axes, unsure.iterrows(), strict=True):
    axis.imshow(images[index, 0], cmap="gray")
    axis.set_title(f"{row['true']} as {row['class']}\n{row['probability']:.2f}")
    axis.axis("off")

# %% [markdown]
# ## Weights
#
# `run.model()` is the network as a PyTorch module. The filters of the first convolution are small pictures: light parts
# respond to light pixels, dark parts to dark ones.

# %%
model = run.model()
filters = next(weights for name, weights in model.named_parameters() if weights.ndim == 4).detach()
print("filters, channels, rows, columns:", tuple(filters.shape))
figure, axes = plt.subplots(1, 8, figsize=(9, 1.4))
for axis, kernel in zip(axes, filters[:, 0], strict=False):
    axis.imshow(kernel, cmap="gray")
    axis.axis("off")

# %% [markdown]
# ## Which pixels matter?
#
# The gradient of the logit of a class with respect to a pixel says how strongly the logit changes with that pixel. The
# map of its absolute values is called **saliency**. PyTorch computes gradients for the training, and here for the
# pixels.
#
# A network of litlab expects normalised pixels. `data.normalize` computes them with the mean and standard deviation of
# the training images, which `setup` determines.

# %%
data.setup("fit")
normalize = data.normalize
assert normalize
inputs = normalize(images.float()).requires_grad_()
logits = model(inputs)
logits.amax(1).sum().backward()  # of the predicted class of each image
saliency = inputs.grad.abs()[:, 0]

# %%
figure, axes = plt.subplots(2, 6, figsize=(9, 3.2))
for column in range(6):
    axes[0, column].imshow(images[column, 0], cmap="gray")
    axes[1, column].imshow(saliency[column], cmap="inferno")
for axis in axes.flat:
    axis.axis("off")

# %% [markdown]
# Bright pixels are often on the strokes, and where another digit would have a stroke.
#
# How far does the network depend on them? Erase the 80 pixels with the highest saliency, and see how many digits are
# still read correctly. For comparison, erase as many at random.

# %%
random = torch.rand(saliency.shape, generator=torch.Generator().manual_seed(0))
accuracy = {}
for name, order in {"most salient": saliency, "random": random}.items():
    pixels = images.float().flatten(1)
    pixels.scatter_(1, order.flatten(1).topk(80).indices, 0.0)
    with torch.no_grad():
        predicted = model(normalize(pixels.view_as(images))).argmax(1)
    accuracy[name] = float((predicted == labels).float().mean())
accuracy

# %% [markdown]
# `litlab explain` has this method and seven others for the runs of any image classifier, with figures that are stored
# beside the run: for example `litlab explain saliency best:digits-convnet` in a shell.
