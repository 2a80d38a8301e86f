# %% [markdown]
# # Digits from nothing
#
# Improved consistency training on 1,797 real 8x8 digits, from random weights: three minutes on two CPU cores.
# A notebook needs no Ray.

# %%
import cm_ray as cm

OUT, CHANGES = "runs/gallery", {}

recipe = cm.recipes.ict_digits()
print(recipe.steps, "steps of", recipe.batch_size, "images;", recipe.method.times.scales)

# %% [markdown]
# `Trainer` is a loop over the steps. It writes checkpoints: the same cell goes on where it was stopped.

# %%
trainer = cm.Trainer(cm.override(recipe, CHANGES), out=f"{OUT}/digits", quiet=True)
losses = [step.loss for step in trainer]
print(f"loss {losses[0]:.2f} at the first step, {losses[-1]:.2f} at the last")

# %% [markdown]
# Samples show themselves. One evaluation of the network for each:

# %%
run = cm.load(f"{OUT}/digits")
run.sample(20, seed=0)

# %% [markdown]
# Two evaluations, of one class. Sample i of a seed is the same image in any batch.

# %%
run.sample(20, steps=2, label="7", seed=0)

# %% [markdown]
# The scores have errors and keys. `FD-digits-1797` is a Fréchet distance in features of a small classifier of
# these digits, and no FID.

# %%
for score in run.scores:
    print(score.name, round(score.value, 3), "±", round(score.error, 3), score.key["sampler"])

# %% [markdown]
# Between two samples lie others, since the noise can be mixed:

# %%
run.interpolate(10, seeds=(0, 1), label="3")
