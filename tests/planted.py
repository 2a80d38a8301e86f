"""Runs and models of a stranger, whose files name code that leaves a trace where it is imported."""

import json
import shutil
import sys
from pathlib import Path

from cm_ray.networks.custom import Custom
from cm_ray.networks.model import ModelSpec, save_model
from tests.cluster.tiny import DIFFUSION, make_tiny_run
from tests.networks.custom_networks import TinyNetwork
from tests.results import result

MODULE = """
from pathlib import Path

Path(__file__).with_name("imported").touch()

from tests.networks.custom_networks import TinyNetwork as Net


class features:
    name, dim, weights_sha256, preprocess = "planted", 4, "", "none"

    def __init__(self, device):
        pass

    def features(self, images):
        return images[:, 0, :2, :2].double().flatten(1)
"""
NET, FEATURES = "planted_module:Net", "planted_module:features"


def plant(folder):
    """Write the module into a folder; return the trace of its import."""
    folder.mkdir(exist_ok=True)
    (folder / "planted_module.py").write_text(MODULE)
    return Path(folder / "imported")


def forget(trace):
    """Let the module be imported as for the first time."""
    sys.modules.pop("planted_module", None)
    trace.unlink(missing_ok=True)


def planted_model(folder, network=NET):
    """Write a model whose network is the module's; return its folder."""
    spec = ModelSpec(network=Custom(path=network), diffusion=DIFFUSION, shape=(1, 8, 8))
    save_model(folder, spec, TinyNetwork((1, 8, 8), 0).state_dict())
    return folder


def planted_run(folder, *, network=NET, extractor=FEATURES):
    """Write a finished run of digits whose model and scores need the module's code."""
    run = make_tiny_run(folder, data="digits", extractor="digits")
    values = json.loads(run.config_file.read_text())
    values["evaluation"]["extractor"] = extractor
    values["tracking"]["uri"] = "none"
    if network:
        values["network"] = {"kind": "custom", "path": network}
        shutil.rmtree(run.model)
        planted_model(run.model, network)
    run.config_file.write_text(json.dumps(values))
    run.result_file.write_text(json.dumps(result()))
    return run
