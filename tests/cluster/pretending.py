"""Sweeps whose trainings only pretend: all is real but the training, which takes seconds to start.

python -m tests.cluster.pretending SPACE RUN_DIR    # such a sweep, in a process to kill
"""

import sys
import time
from pathlib import Path

from cm_ray.cluster.sweeps import run_sweep as module
from cm_ray.cluster.training.run import Stopped
from cm_ray.errors import UserError
from cm_ray.networks.unet import check_fits
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import write_json
from tests.results import result
from tests.tracking import tracked_runs

DIVERGED = "The loss is inf at step 2"


def pretended_train(config, watch, prepared):
    """Score badly where the step size is small; go on from the last row, stop when asked, diverge if told."""
    assert prepared.folder_for(config.data), "a trial would look at all files of the data again"
    run = RunDirectory(Path(config.run_dir))
    with run.locked():
        run.claim(config)
        check_fits(config.network, (1, 8, 8))
        if config.optimizer.learning_rate > 1:
            raise UserError(DIVERGED)
        last = max((row["step"] for row in run.read_metrics()), default=0)
        for step in range(last + 5, config.steps + 1, 5):
            time.sleep(0.3)
            row = {"step": step, "scores": [score(config, step)]}
            run.append_metrics(row)
            if watch(row) and step < config.steps:
                raise Stopped
        if not run.result_file.exists():
            write_json(run.result_file, result(score(config, config.steps)))


def score(config, step):
    """Return a row of scores: falling from 1, or from 9 where nothing is learnt."""
    worst = 9 if config.optimizer.learning_rate < 1e-3 else 1
    best = config.optimizer.learning_rate if step == config.steps else 0
    value = worst - step / config.steps - best + config.seed / 1000
    return tracked_runs.score(value, n=100).to_row()


def pretended_trial(config, *, trials):
    """Run the real trial with the pretended training."""
    from cm_ray.cluster.sweeps import sweep_trial

    sweep_trial.train = pretended_train
    sweep_trial.run_trial(config, trials=trials)


if __name__ == "__main__":
    module.run_trial = pretended_trial
    space, run_dir = sys.argv[1:]
    module.sweep(
        module.Sweep(space=space, run_dir=run_dir, scheduler="none", tracking_uri="none"), changes={}
    )
