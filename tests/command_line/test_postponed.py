"""A postponed torch costs nothing until it is used, and is then the same module as any."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEFORE = """
import sys
from cm_ray.command_line.postponed import is_postponed, load, postpone

def loaded():
    return any(name.startswith("torch.") for name in sys.modules)

postpone()
import torch
import torch as again
assert torch is again is sys.modules["torch"]
assert is_postponed() and not loaded()
postpone()
assert is_postponed()
"""
AFTER = """
import inspect, pickle, types
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

assert not is_postponed() and loaded()
assert type(torch) is types.ModuleType
assert torch is again is sys.modules["torch"]
assert "torch" in inspect.getsource(torch)
load()
postpone()
assert not is_postponed()
layer = pickle.loads(pickle.dumps(nn.Linear(2, 2)))
assert isinstance(layer, torch.nn.Module)

class Numbers(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor(index)

assert torch.cat(list(DataLoader(Numbers(), batch_size=2, num_workers=1))).tolist() == [0, 1, 2, 3]
"""
USES = {
    "load": "load()",
    "attribute": "assert torch.ones(2).sum() == 2",
    "from": "from torch import Tensor; assert Tensor is torch.Tensor",
    "submodule": "import torch.nn.functional as F; assert callable(F.relu)",
    "set": "torch.something = 3; assert torch.something == 3; del torch.something",
    "cloudpickle": "load(); import cloudpickle as c; assert c.loads(c.dumps(lambda: torch.ones(1)))() == 1",
}


def run(program):
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("use", USES)
def test_any_use_loads_the_module_itself(use):
    run(BEFORE + USES[use] + AFTER)


def test_a_module_that_fails_can_be_imported_again(tmp_path):
    code = "import os\nif 'NOW' not in os.environ: raise RuntimeError('not yet')\n"
    (tmp_path / "failing.py").write_text(code)
    run(f"""
import os, sys
sys.path.insert(0, {str(tmp_path)!r})
from cm_ray.command_line.postponed import is_postponed, load, postpone
postpone("failing")
postpone("not_installed")
assert "not_installed" not in sys.modules
import failing
try:
    failing.value
except RuntimeError as error:
    assert str(error) == "not yet"
else:
    raise AssertionError
assert "failing" not in sys.modules
os.environ["NOW"] = "1"
import failing
assert failing.os is os
""")
