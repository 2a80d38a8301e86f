"""Files of search spaces whose trainings take a second."""

HEAD = """
from cm_ray import recipes
from cm_ray.settings.tree import override
from cm_ray.sweeps.space import Categorical, Float, Int, Named, Space

TINY = {
    "steps": 20,
    "batch_size": 16,
    "network.channels": 8,
    "network.blocks": 1,
    "network.head_channels": 8,
    "network.norm_groups": 4,
    "checkpoint.every": 5,
    "evaluation.every": 5,
    "evaluation.samples": 100,
    "evaluation.grid": 2,
    "evaluation.samplers": ("one-step",),
}
BASE = override(recipes.ct_digits(), TINY)
"""

GRID = "space={'distance': Categorical(['l2', 'l1'])}, sampler='grid', "


def write_space(folder, body, kind="SPACE = Space"):
    file = folder / "tiny.py"
    kind = kind.replace("FOLDER", f"pathlib.Path({str(folder)!r})")
    file.write_text(f"{HEAD}\n{kind}(question='Which?', base=BASE, {body})\n")
    return file
