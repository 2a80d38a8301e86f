"""Bad input gets one sentence and exit code 2, before anything is trained."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cm_ray import recipes
from cm_ray.cluster.sweeps import run_sweep
from cm_ray.cluster.training.run import train
from cm_ray.core.averages import ConstantEMA
from cm_ray.core.schedules import Adaptive, AdaptiveDecay, ConstantDecay
from cm_ray.data.shards.manifest import Manifest
from cm_ray.errors import SettingError, UserError
from cm_ray.recipes.recipe import check_models_named
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.choices import word_of
from cm_ray.settings.tree import override
from cm_ray.sweeps.options import Sweep

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
    "distance": "l2",
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
        ("train.py", ["ct_digit"], "There is no recipe 'ct_digit': did you mean 'ct_digits'?"),
        ("train.py", [], "Name a recipe first. Recipes: edm_cifar10, cd_cifar10"),
        ("train.py", ["ict"], "ict is for images of your own: give --data, or name ict_cifar10"),
        (
            "ct_cifar.py",
            ["--network.chanels", "8"],
            "--network.chanels is not a setting: did you mean --network.channels?",
        ),
        ("ct_cifar.py", ["--distance", "l3"], "--distance cannot be 'l3': known are adaptive-l2, l1, l2"),
        ("ct_cifar.py", ["--batch-size", "7", "--num-workers", "2"], "--batch-size 7 does not split into 2"),
        (
            "ct_cifar.py",
            ["--network.channels", "48"],
            "The network does not fit: --network.norm-groups 32 does not divide the channels [48, 96,",
        ),
        (
            "ict_cifar.py",
            ["--data.size", "30"],
            "images of 30 pixels cannot be halved 2 times; set --network.channel-mult to fewer levels",
        ),
        ("ct_cifar.py", ["--config", "nowhere.json"], "--config nowhere.json does not exist"),
        ("ct_cifar.py", ["--times.scales.s0", "200"], "--times.scales.s0 200 must be in [2, s1 = 150]"),
        ("ct_cifar.py", ["--times.q", "3"], "--times.q belongs to times tuned, and times is grid."),
        (
            "ct_cifar.py",
            ["--target.mu", "0.9"],
            "--target.mu belongs to target constant, and target is adaptive",
        ),
        (
            "ct_cifar.py",
            ["--teacher", "x"],
            "--teacher.model belongs to method cd, pd",
        ),
        ("ict_cifar.py", ["--mu0", "0.9"], "--mu0 is not a setting: did you mean --target.mu0?"),
        ("ict_cifar.py", ["--target.mu0", "0.9"], "belongs to target adaptive, and target is constant"),
        ("pd_cifar.py", ["--solver", "euler"], "--solver belongs to method cd, and method is pd"),
        ("pd_cifar.py", ["--times.scales.s0", "2"], "--times.scales.s0 belongs to method ct, cd"),
        (
            "ct_digits.py",
            ["--distance.c", "1"],
            "--distance.c belongs to distance adaptive-l2 or pseudo-huber, and distance is l2",
        ),
        ("edm_cifar.py", ["--boundary", "skip"], "--boundary belongs to method ct, cd"),
        ("cd_cifar.py", [], "--teacher.model is missing: it takes a run directory"),
        ("pd_cifar.py", [], "--teacher.model is missing: it takes a run directory"),
        ("ect_cifar.py", [], "--init-from.model is missing: it takes a run directory"),
        ("sample.py", ["nowhere"], "nowhere is not a model; give a run directory, a model's folder"),
        ("edit.py", ["inpant", "--model", "nowhere"], "inpaint"),
        (
            "edit.py",
            ["stroke", "--model", "nowhere"],
            "nowhere is not a model; give a run directory, a model's folder",
        ),
        ("track.py", ["nowhere"], "nowhere is not a run directory"),
        ("evaluate.py", ["digits"], "The images are not given; set --data to a folder"),
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
    """These mistakes show only with the data and the cluster at hand."""

    def test_missing_and_empty_data(self, ray_cluster, tmp_path):
        run = str(tmp_path / "run")
        refused("data.path is empty", run_dir=run, data__path="")
        refused(r"There is no .*/nowhere", run_dir=run, data__path=str(tmp_path / "nowhere"))
        (tmp_path / "empty").mkdir()
        refused("holds no images", run_dir=run, data__path=str(tmp_path / "empty"))
        refused("did you mean 'digits'", run_dir=run, data__path="digit")

    def test_a_corrupt_image_is_named_or_skipped(self, ray_cluster, trains_here, tmp_path, pictures, capsys):
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

    def test_a_corrupt_shard_is_named_by_the_worker(self, ray_cluster, trains_here, tmp_path, pictures):
        """A worker's sentence reaches the command: see test_a_loss_that_is_not_finite_is_told_once."""
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


def test_models_to_begin_with_are_asked_for_by_trainings_alone():
    for name in recipes.RECIPES:
        config = recipes.named(name)
        if config.teacher is not None or config.init_from.model == "teacher":
            path = "teacher.model" if config.teacher is not None else "init_from.model"
            with pytest.raises(UserError, match=f"^{path} is missing: it takes a run directory"):
                check_models_named(config)
            config = override(config, {path: "runs/edm"})
        check_models_named(config)


@pytest.mark.parametrize("recipe", ["cd_digits", "ect_digits"])
def test_a_missing_model_is_said_before_anything_is_written(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("cm_ray.cluster.training.run.connected", lambda: pytest.fail("Ray was started"))
    config = override(recipes.named(recipe), {"run_dir": str(tmp_path / "run")})
    with pytest.raises(UserError, match="is missing: it takes a run directory"):
        train(config)
    assert not list(tmp_path.iterdir())


def test_a_sweep_asks_for_its_teacher_before_anything_is_written(tmp_path, monkeypatch):
    space = SimpleNamespace(base=recipes.cd_digits())
    monkeypatch.setattr(run_sweep, "load_space", lambda name, changes: space)
    monkeypatch.setattr(run_sweep, "connected", lambda: pytest.fail("Ray was started"))
    with pytest.raises(UserError, match=r"^teacher\.model is missing: it takes a run directory"):
        run_sweep.sweep(Sweep(space="mine", run_dir=str(tmp_path / "run")), {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"cluster.num_workers": 0}, r"cluster\.num_workers must be at least 1, not 0"),
        ({"accumulate": 0}, "accumulate must be at least 1, not 0"),
        ({"accumulate": 3}, "batch_size 128 does not split into .* choose a multiple of 3"),
        ({"seed": -1}, r"seed must be in \[0, 2\^63\), not -1"),
        ({"log_every": 0}, "log_every must be at least 1, not 0"),
        ({"averages.decays": ()}, r"averages\.decays needs at least one decay"),
        ({"averages.decays": (1.0,)}, r"averages\.decays must be in \[0, 1\), not \(1\.0,\)"),
        (
            {"times.scales.s0": 1, "times.scales": "adaptive"},
            r"times\.scales\.s0 1 must be in \[2, s1 = 40\]",
        ),
        ({"times.scales.s0": 0}, r"times\.scales\.s0 0 must be in \[1, s1 = 40\]"),
        ({"times.scales": "constant", "times.scales.n": 1}, r"times\.scales\.n .* a grid has two boundaries"),
        (
            {"times.scales": "halving"},
            r"times\.scales cannot be 'halving': known are adaptive, constant, dou",
        ),
        ({"times.proposal.std": 0.0}, r"times\.proposal\.std must be positive, not 0"),
        ({"target": "adaptive", "target.mu0": 0.0}, r"target\.mu0 0\.0 must be in \(0, 1\)"),
        ({"target.mu": 1.0}, r"target\.mu 1\.0 must be in \[0, 1\)"),
        ({"distance.c": -1.0}, r"distance\.c must be positive, or 0 for"),
        ({"distance": "lpips", "distance.size": -1}, r"distance\.size must not be negative"),
        ({"noise.t_min": 90.0}, r"noise\.t_min 90\.0 must be in \(0, t_max = 80\.0\)"),
        ({"noise.t_min": 0.0}, r"noise\.t_min 0\.0 must be in"),
        ({"noise.rho": 0.0}, r"noise\.rho must be positive"),
        ({"column.sigma_data": 0.0}, r"column\.sigma_data must be positive"),
        ({"column": "vp", "weight": "karras"}, "weight karras needs the sigma_data of column edm"),
        ({"network.dropout": 1.0}, r"network\.dropout must be in"),
        ({"network.norm_groups": 0}, r"network\.norm_groups must be at least 1, not 0"),
        ({"network.channel_mult": ()}, r"network\.channel_mult needs at least one level"),
        ({"network.head_channels": -1}, r"network\.head_channels must be at least 1, or 0 for one head"),
        (
            {"network": "ncsn++", "network.scale_shift": False},
            r"network\.scale_shift belongs to network adm, and network is ncsn\+\+",
        ),
        ({"network": "ddpm++", "network.head_channels": 0}, r"network\.head_channels belongs to network adm"),
        (
            {"network": "ncsn++", "network.resample_blocks": True},
            r"network\.resample_blocks belongs to network",
        ),
        (
            {"network.fourier_scale": 1.0},
            r"network\.fourier_scale belongs to network ncsn\+\+ or edm2, and network is adm",
        ),
        (
            {"network": "ncsn++", "network.fourier_scale": 0.0},
            r"network\.fourier_scale must be positive, not 0\.0",
        ),
        ({"optimizer.learning_rate": 0.0}, r"optimizer\.learning_rate must be positive, not 0\.0"),
        ({"optimizer.beta2": 1.0}, r"optimizer\.beta2 must be in \(0, 1\)"),
        ({"optimizer.gradient_clip": -1.0}, r"optimizer\.gradient_clip must not be negative"),
        ({"optimizer.warmup_steps": 900}, r"optimizer\.warmup_steps 900 must be less than steps 900"),
        ({"optimizer.warmup_steps": -1}, r"optimizer\.warmup_steps must not be negative"),
        ({"checkpoint.every": 0}, r"checkpoint\.every must be at least 1, not 0"),
        ({"checkpoint.keep": 0}, r"checkpoint\.keep must be at least 1, not 0"),
        ({"evaluation.every": 150}, r"evaluation\.every 150 must be a multiple of checkpoint\.every 100"),
        ({"evaluation.every": -100}, r"evaluation\.every must not be negative"),
        ({"evaluation.batch_size": 0}, r"evaluation\.batch_size must be at least 1"),
        ({"evaluation.grid": 0}, r"evaluation\.grid must be at least 1"),
        ({"evaluation.samples": 1}, r"evaluation\.samples must be at least 2"),
        (
            {"evaluation.samplers": ("multistep@1.0,2.0",)},
            r"evaluation\.samplers multistep@1\.0,2\.0: Time points must descend between 80 and 0\.002",
        ),
        (
            {"evaluation.samplers": ("heun:18",)},
            r"evaluation\.samplers heun:18: heun:18 is for diffusion models",
        ),
        ({"evaluation.samplers": ()}, r"evaluation\.samplers needs at least one"),
        ({"method": "edm"}, r"evaluation\.samplers one-step: one-step is for consistency models"),
        (
            {"teacher.model": "runs/edm"},
            r"teacher\.model belongs to method cd, pd",
        ),
        ({"method": "edm", "target.mu": 0.9}, r"target\.mu belongs to method ct, cd"),
        ({"method": "edm", "boundary": "skip"}, "boundary belongs to method ct, cd"),
        ({"method": "edm", "times.proposal": "uniform"}, r"times\.proposal belongs to method ct, cd"),
        ({"solver": "euler"}, "solver belongs to method cd, and method is ct"),
        ({"times.q": 3.0}, r"times\.q belongs to times tuned, and times is grid"),
        ({"times": "tuned", "times.q": 1.0}, r"times\.q must be greater than 1"),
        ({"times": "tuned", "times.stages": 0}, r"times\.stages must be at least 1"),
        ({"times": "tuned", "target": "adaptive"}, r"target adaptive follows N\(k\) of times grid"),
        ({"method": "cd", "times": "tuned"}, "times is always Grid here, and not 'tuned'"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(SettingError, match="^" + message):
        override(recipes.ict_digits(), changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 6}, "steps 6 are too few for the rounds from 16 sampling steps to 1"),
        ({"rounds.s1": 12}, r"rounds\.s1 12 must be s0 = 1 times a power of two"),
        ({"rounds.s0": 32}, r"rounds\.s0 32 must be in \[1, s1 = 16\]"),
        ({"times.scales": "constant"}, r"times\.scales belongs to method ct, cd"),
        ({"solver": "euler"}, "solver belongs to method cd, and method is pd"),
        ({"target.mu": 0.5}, r"target\.mu belongs to method ct, cd"),
    ],
)
def test_progressive_distillation_that_cannot_be(changes, message):
    with pytest.raises(SettingError, match="^" + message):
        override(recipes.pd_digits(), {"teacher.model": "runs/edm"} | changes)


def test_recipes_are_table_3():
    """Against the published table, where it is at hand."""
    import csv

    file = ROOT.parent / "shared" / "paper" / "table3_hyperparameters.csv"
    if not file.is_file():
        pytest.skip("the published tables are not beside this checkout")
    table = {row["hyperparameter"]: row for row in csv.DictReader(file.open())}
    for data in ("cifar10", "imagenet64", "lsun256"):
        for method in ("cd", "ct"):
            recipe = recipes.named(f"{method}_{data}")
            published = {name: row[f"{data}_{method}"] for name, row in table.items()}
            assert word_of(recipe.method) == method
            assert recipe.optimizer.learning_rate == float(published["learning_rate"])
            assert recipe.batch_size == int(published["batch_size"])
            assert word_of(recipe.method.distance) == published["distance"]
            assert recipe.averages == ConstantEMA(decays=(float(published["ema_decay"]),))
            assert recipe.steps == int(published["training_iterations"])
            assert (recipe.precision != "float32") == (published["mixed_precision"] == "yes")
            assert recipe.network.dropout == float(published["dropout"])
            scales, target = recipe.method.times.scales, recipe.method.target
            if method == "ct":
                assert target == AdaptiveDecay(mu0=float(published["mu_0"]))
                assert scales == Adaptive(s0=int(published["s_0"]), s1=int(published["s_1"]))
            else:
                assert target == ConstantDecay(mu=float(published["mu"]))
                assert scales(0, recipe.steps) == scales(recipe.steps, recipe.steps) == int(published["n"])
                assert recipe.method.solver == published["ode_solver"]
                assert recipe.init_from.model == "teacher"
