# %% [markdown]
# # Distil a diffusion model
#
# A teacher needs 35 evaluations for an image; its student, one. Both have the network `adm`, which exports to
# diffusers: the networks of the CIFAR-10 recipes do not.

# %%
import cm_ray as cm

OUT, CHANGES = "runs/gallery", {}

teacher = cm.train(cm.override(cm.recipes.edm_digits(), CHANGES), out=f"{OUT}/teacher", quiet=True)
teacher.sample(20, sampler="heun:18", seed=0)

# %% [markdown]
# The teacher in one step is a blur, the mean of all that the noise could be:

# %%
teacher.sample(20, sampler="euler:1", seed=0)

# %% [markdown]
# Consistency distillation copies the teacher into the run and starts from its weights.

# %%
changes = {**CHANGES, "teacher.model": f"{OUT}/teacher"}
student = cm.train(cm.override(cm.recipes.cd_digits(), changes), out=f"{OUT}/student", quiet=True)
student.sample(20, seed=0)

# %%
for name, run in (("teacher", teacher), ("student", student)):
    for score in run.scores:
        print(name, score.key["sampler"], score.name, round(score.value, 3), "±", round(score.error, 3))
