"""Bad input gets one sentence and exit code 2, before anything is trained."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cm_ray import recipes
from cm_ray.cluster.train.run import train
from cm_ray.data.shards import Manifest
from cm_ray.errors import UserError
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import from_dict, override, to_dict
from cm_ray.training import recipe

ROOT = Path(__file__).parents[2]
TINY = {
    "steps": 2,
    "batch_size": 8,
    "network.channels": 8,
    "network.head_channels": 8,
    "network.norm_groups": 4,
    "network.blocks": 1,
    "network.channel_mult": (1,),
    "evaluation.extractor": "none",
    "tracking.uri": "none",
    "distance.name": "l2",
}


@pytest.fixture
def job(monkeypatch, capsys):
    """Run a job's command in this process: most of a process of its own would be imports."""

    def run(name, *options):
        monkeypatch.setattr(sys, "argv", [name, *map(str, options)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "jobs" / name), run_name="__main__")
        said = capsys.readouterr()
        return SimpleNamespace(returncode=ended.value.code, stdout=said.out, stderr=said.err)

    return run


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("train.py", ["ct_digit"], "There is no preset 'ct_digit': did you mean 'ct_digits'?"),
        ("train.py", [], "Name a preset first: edm_cifar10, cd_cifar10"),
        ("ct_cifar.py", ["--network.chanels", "8"], "--network.channels"),
        ("ct_cifar.py", ["--distance.name", "l3"], "l2"),
        ("ct_cifar.py", ["--batch-size", "7", "--num-workers", "2"], "--batch-size 7 does not split into 2"),
        ("ct_cifar.py", ["--config", "nowhere.json"], "--config nowhere.json is not there"),
        ("ct_cifar.py", ["--schedule.s0", "200"], "--schedule.s0 200 must be in [1, s1 = 150]"),
        ("cd_cifar.py", [], "Which teacher? --teacher takes a run directory"),
        ("ect_cifar.py", [], "Which teacher? --teacher takes a run directory"),
        ("sample.py", ["nowhere"], "nowhere is not a model; give a run directory, a model's folder"),
        ("edit.py", ["inpant", "--model", "nowhere"], "inpaint"),
        (
            "edit.py",
            ["stroke", "--model", "nowhere"],
            "nowhere is not a model; give a run directory, a model's folder",
        ),
        ("track.py", ["nowhere"], "nowhere is not a run directory"),
        ("evaluate.py", ["digits"], "Compared with which images? --data takes a folder"),
        ("evaluate.py", ["digts", "--data", "digits"], "did you mean 'digits'?"),
        ("evaluate.py", ["digits", "--scores", "FID"], "FDinf"),
    ],
)
def test_commands(name, options, said, job):
    done = job(name, *options)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "jobs").glob("[a-z]*.py")))
def test_help_is_complete(name, job):
    options = ["ct_imagenet64"] if name == "train.py" else []
    done = job(name, *options, "--help")
    assert done.returncode == 0, done.stderr
    assert "--debug" in done.stdout
    if name.startswith(("ct_", "cd_", "edm_", "pd_", "ict_", "ect_", "train")):
        for option in ["--run-dir", "--steps", "--seed", "--cluster.num-workers", "--num-workers", "--data"]:
            assert option in done.stdout
        assert "iCT" in done.stdout, "the fields' docstrings are there"


def refused(message, **changes):
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    config = override(recipes.ict_digits(), TINY | changes)
    with pytest.raises(UserError, match=message):
        train(config)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return folder


@pytest.mark.ray
class TestOnACluster:
    """What can be known only with the data and the cluster at hand."""

    def test_missing_and_empty_data(self, ray_cluster, tmp_path):
        run = str(tmp_path / "run")
        refused("No data is given", run_dir=run, data__path="")
        refused(r"There is no .*/nowhere", run_dir=run, data__path=str(tmp_path / "nowhere"))
        (tmp_path / "empty").mkdir()
        refused("holds no images", run_dir=run, data__path=str(tmp_path / "empty"))
        refused("did you mean 'digits'", run_dir=run, data__path="digit")

    def test_a_corrupt_image_is_named_or_skipped(self, ray_cluster, tmp_path, pictures, capsys):
        """And in the same training, to spare one: a tracking server that does not answer stops nothing."""
        bad = pictures / "03.png"
        bad.write_bytes(bad.read_bytes()[:40])
        run = str(tmp_path / "run")
        refused(r"03.png is not a readable image", run_dir=run, data__path=str(pictures))
        config = override(
            recipes.ict_digits(),
            TINY
            | {"run_dir": run, "data.path": str(pictures), "data.on_bad_image": "skip"}
            | {"network.conditional": False}
            | {"tracking.uri": "http://127.0.0.1:9", "tracking.model_name": "unreachable"},
        )
        train(config)
        assert (tmp_path / "run" / "result.json").exists()
        assert "cm-ray track" in capsys.readouterr().err
        lineage = (tmp_path / "run" / "lineage.json").read_text()
        assert '"data.skipped": "1"' in lineage

    def test_mixed_sizes(self, ray_cluster, tmp_path, pictures):
        Image.new("L", (9, 9)).save(pictures / "99.png")
        refused(r"8x8.*9x9|9x9.*8x8", run_dir=str(tmp_path / "run"), data__path=str(pictures))

    def test_truncated_and_missing_shards_are_named(self, ray_cluster, tmp_path, pictures):
        from cm_ray.cluster.data.make_shards import make_shards
        from cm_ray.data.open_source import open_source

        shards = tmp_path / "shards"
        make_shards(open_source(str(pictures)), shards)
        file = shards / Manifest.load(shards).shards[0].file
        whole = file.read_bytes()
        file.write_bytes(whole[:-100])
        run = str(tmp_path / "run")
        refused(f"{file.name} has .* bytes", run_dir=run, data__path=str(shards))
        file.unlink()
        refused(f"{file.name} is missing", run_dir=run, data__path=str(shards))

    def test_a_corrupt_shard_is_named_by_the_worker(self, ray_cluster, tmp_path, pictures):
        from cm_ray.cluster.data.make_shards import make_shards
        from cm_ray.data.open_source import open_source

        shards = tmp_path / "shards"
        make_shards(open_source(str(pictures)), shards)
        file = shards / Manifest.load(shards).shards[0].file
        content = bytearray(file.read_bytes())
        content[200] ^= 255  # a bit of a pixel: the size stays
        file.write_bytes(bytes(content))
        refused(
            f"{file.name} is missing, cut off or corrupt",
            run_dir=str(tmp_path / "run"),
            data__path=str(shards),
            network__conditional=False,
        )

    def test_more_workers_than_cpus(self, ray_cluster, tmp_path):
        refused(
            "9999 workers need a CPU core each",
            run_dir=str(tmp_path / "run"),
            cluster__num_workers=9999,
            batch_size=9999,
        )

    def test_labels_are_wanted_and_there_are_none(self, ray_cluster, tmp_path, pictures):
        refused(
            "The images have no labels",
            run_dir=str(tmp_path / "run"),
            data__path=str(pictures),
            network__conditional=True,
        )

    def test_another_run_in_the_directory(self, ray_cluster, tmp_path):
        run = RunDirectory(tmp_path / "run")
        run.root.mkdir()
        run.claim(override(recipes.ict_digits(), TINY | {"seed": 4}))
        refused(r"has a run with other settings: seed \(4 there, 0 here\)", run_dir=str(run.root))
        assert run.config().seed == 4


@pytest.mark.parametrize("preset", recipes.PRESETS)
def test_configs_go_to_json_and_back(preset):
    config = recipes.preset(preset)
    if config.init_from == "teacher":
        with pytest.raises(UserError, match="Which teacher"):
            check(config)
        config = override(config, {"teacher.model": "runs/edm"})
    check(config)
    assert from_dict(Recipe, to_dict(config)) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1, not 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1, not 0"),
        ({"cluster.num_workers": 0}, "--num-workers must be at least 1, not 0"),
        ({"accumulate": 3}, "choose a multiple of 3"),
        ({"ema_decays": ()}, "--ema-decays needs at least one decay"),
        ({"schedule.s0": 1, "schedule.scales": "adaptive"}, "a grid has two boundaries"),
        ({"schedule.mu0": 0.0, "schedule.target": "adaptive"}, "--schedule.mu0 0.0 must be in"),
        ({"diffusion.t_min": 90.0}, "--diffusion.t-min 90.0 must be in"),
        ({"network.dropout": 1.0}, "--network.dropout must be in"),
        ({"network.norm_groups": 0}, "blocks and norm-groups must be at least 1"),
        ({"network.head_channels": -1}, "--network.head-channels must be at least 1, or 0 for one head"),
        ({"network.family": "ncsn++", "network.scale_shift": False}, "give --network.head-channels 0"),
        (
            {"network.family": "ddpm++", "network.head_channels": 0, "network.scale_shift": True},
            "adds the time to the features: give --network.no-scale-shift",
        ),
        (
            {
                "network.family": "ncsn++",
                "network.head_channels": 0,
                "network.scale_shift": False,
                "network.resample_blocks": False,
            },
            "changes the resolution inside residual blocks: give --network.resample-blocks",
        ),
        ({"network.fourier_scale": 0.0}, "--network.fourier-scale must be positive, not 0.0"),
        ({"optimizer.learning_rate": 0.0}, "--optimizer.learning-rate must be positive, not 0.0"),
        ({"evaluation.every": 150}, "must be a multiple of --checkpoint.every 100"),
        ({"evaluation.samples": 1}, "--evaluation.samples must be at least 2"),
        (
            {"evaluation.samplers": ("multistep@1.0,2.0",)},
            "--evaluation.samplers: Time points must descend between 80 and 0.002",
        ),
        ({"evaluation.samplers": ("heun:18",)}, "heun:18 is for diffusion models"),
        ({"evaluation.samplers": ()}, "--evaluation.samplers needs at least one"),
        ({"method": "cd"}, "Which teacher\\? --teacher takes"),
        ({"init_from": "teacher"}, "Which teacher\\? --teacher takes"),
        ({"method": "edm"}, "--diffusion.boundary skip does not go with --method edm"),
        ({"schedule.scales": "halving"}, "--schedule.scales halving does not go with --method ct"),
        ({"optimizer.warmup_steps": 900}, "--optimizer.warmup-steps 900 must be in"),
        ({"teacher.model": "runs/edm"}, "--method ct does not use a teacher"),
        ({"diffusion.rho": 0.0}, "--diffusion.rho must be positive"),
        (
            {"method": "edm", "diffusion.boundary": "none", "schedule.mu0": 0.9},
            "--method edm has no target network",
        ),
        ({"schedule.ect_q": 1.0}, "--schedule.ect-q must be greater than 1"),
    ],
)
def test_configs_that_cannot_be_trained(changes, message):
    with pytest.raises(UserError, match=message):
        check(override(recipes.ict_digits(), changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 6}, "--steps 6 are too few for the rounds from 16 sampling steps to 1"),
        ({"schedule.s1": 12}, "--schedule.s1 12 must be s0 = 1 times a power of two"),
        ({"schedule.scales": "constant"}, "pd alone halves"),
    ],
)
def test_progressive_distillation_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        check(override(recipes.pd_digits(), {"teacher.model": "runs/edm"} | changes))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schedule.s", 1, "There is no setting 'schedule.s': did you mean 'schedule.s1'"),
        ("distance.name", "l3", "distance.name cannot be 'l3'"),
        ("steps", "many", "steps must be int, not 'many'"),
        ("steps", True, "steps must be int, not True"),
        ("ema_decays", ["a"], "ema_decays must be float, not 'a'"),
    ],
)
def test_overrides_that_do_not_fit(path, value, message):
    with pytest.raises(UserError, match=message):
        override(recipes.ict_digits(), {path: value})


def test_presets_are_table_3():
    """Against the published table, where it is at hand."""
    import csv

    file = ROOT.parent / "shared" / "paper" / "table3_hyperparameters.csv"
    if not file.is_file():
        pytest.skip("the published tables are not beside this checkout")
    table = {row["hyperparameter"]: row for row in csv.DictReader(file.open())}
    for data in ("cifar10", "imagenet64", "lsun256"):
        for method in ("cd", "ct"):
            preset = recipes.preset(f"{method}_{data}")
            published = {name: row[f"{data}_{method}"] for name, row in table.items()}
            assert preset.method == method
            assert preset.optimizer.learning_rate == float(published["learning_rate"])
            assert preset.batch_size == int(published["batch_size"])
            assert preset.distance.name == published["distance"]
            assert preset.ema_decays == (float(published["ema_decay"]),)
            assert preset.steps == int(published["training_iterations"])
            assert (preset.precision != "float32") == (published["mixed_precision"] == "yes")
            assert preset.network.dropout == float(published["dropout"])
            schedule = preset.schedule
            if method == "ct":
                assert schedule.mu0 == float(published["mu_0"])
                assert (schedule.s0, schedule.s1) == (int(published["s_0"]), int(published["s_1"]))
                assert (schedule.scales, schedule.target) == ("adaptive", "adaptive")
            else:
                assert schedule.mu0 == float(published["mu"])
                assert recipe.scales(preset)(0) == int(published["n"])
                assert (schedule.scales, schedule.target) == ("constant", "constant")
                assert preset.teacher.solver == published["ode_solver"]
                assert preset.init_from == "teacher"
