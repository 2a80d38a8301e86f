"""The mathematics, the networks and the engine work where PyTorch, safetensors and NumPy are all there is."""

import subprocess
import sys
from pathlib import Path

from tests.waiting import LIMIT_S

ABSENT = ["ray", "mlflow", "lpips", "cleanfid", "torchvision", "optuna", "tyro", "sklearn", "pyarrow", "tqdm"]
ABSENT += ["scipy", "pandas", "matplotlib"]
PROGRAM = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT}))  # None: importing them fails
import torch
import cm_ray.sampling.samplers, cm_ray.networks.unet
from cm_ray import recipes
from cm_ray.settings.tree import override
from cm_ray.networks.model import ModelSpec
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine

config = override(recipes.ict_digits(), {{"steps": 1, "batch_size": 2, "network.conditional": False}})
spec = ModelSpec(network=config.network, diffusion=config.diffusion, shape=(1, 8, 8))
engine = Engine(config, spec)
images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
print([stats.step for stats in engine.train([Batch(images, torch.zeros(2).long())])])
"""


def test_the_engine_trains_without_the_rest():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[1]"
