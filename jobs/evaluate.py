"""Score a model, or anyone's images, against a data set.   python jobs/evaluate.py runs/demo

SOURCE is a run directory, a model's folder, models:/NAME@ALIAS, a file of OpenAI's weights, a directory of
diffusers, or images: a folder of them, Parquet, shards, an .npz, the name of a data set. Generation and
features run on Ray. Every score is a row of scores.json with its whole key; it is called FID-50k only when it
is one. The same command goes on after an interruption.
"""

from cm_ray.cluster.evaluate.evaluate import evaluate
from cm_ray.cluster.evaluate.evaluate_plan import Evaluation
from cm_ray.command_line.options import run_job
from cm_ray.scoring.score_folder import table


def run(settings: Evaluation) -> None:
    """Score, and show the scores."""
    directory, scores = evaluate(settings)
    print(table(scores))
    for path in (directory.root / "scores.json", *sorted(directory.samples.glob("*"))):
        print(path)


if __name__ == "__main__":
    run_job(Evaluation, run, __doc__ or "")
