# %% [markdown]
# # A folder of your own, by auto
#
# Here the folder is made of the digits, a sub-folder for each class; put the path of yours in its place.

# %%
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

import cm_ray as cm
from cm_ray.command_line import main

OUT, HOURS = "runs/gallery", "2"

digits = load_digits()
for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
    folder = Path(OUT, "photos", f"digit {label}")
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(folder / f"{number:04}.png")

# %% [markdown]
# What is understood of it, before anything is trained:

# %%
print(cm.survey(f"{OUT}/photos"))

# %% [markdown]
# `auto` measures this machine, and says what it would choose for the time that there is. Its networks export
# to diffusers.

# %%
main.run(["train", "auto", "--data", f"{OUT}/photos", "--hours", HOURS, "--dry-run"])

# %% [markdown]
# Without `--dry-run` it trains, and ends within the time. In a shell that is
# `cm-ray train auto --data photos/ --hours 2`; the model is a run like any other, which `cm.load` reads.
