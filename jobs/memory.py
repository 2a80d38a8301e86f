"""Estimate the memory of a training.   python jobs/memory.py ct_imagenet64 --gib 40

PRESETS: names of presets; none: one of each network. The step is counted on tensors without storage, so any
machine can ask for any other: what a worker holds (weights, target, teacher, averages, moments, gradients and
the optimizer's copies), what each image of its micro-batch adds, with and without
--network.gradient-checkpointing, and the --accumulate that fits. --measure takes steps and compares.
"""

from cm_ray.budget.memory_table import MemoryQuestion, memory_table
from cm_ray.command_line.options import run_job


def run(asked: MemoryQuestion) -> None:
    """Print the table, row by row."""
    for line in memory_table(asked):
        print(line, flush=True)


if __name__ == "__main__":
    run_job(MemoryQuestion, run, __doc__ or "")
