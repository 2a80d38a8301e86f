"""A short form of every documented command and snippet, or the reason why there is none.

A short form differs from its command by options that make it small, and by the names of things that are not
there, so that whatever the command says is really done.
"""

from dataclasses import dataclass, field

_UNTRACKED = (
    "--steps 2 --batch-size 4 --log-every 1 --checkpoint.every 2 --evaluation.every 0 --evaluation.grid 2 "
    "--evaluation.extractor none --network.blocks 1 --network.norm-groups 4"
)
_SMALL = f"{_UNTRACKED} --tracking-uri none"
TINY = f"{_SMALL} --network.channels 8 --network.head-channels 8"
"""Options that make the training of an ADM of digits a matter of a second."""
TINY_EDM2 = (
    _SMALL.replace("--network.norm-groups 4", "--optimizer.warmup-steps 0")
    + " --network.channels 16 --network.head-channels 16"
)
TINY_CIFAR = f"{_SMALL} --network.channels 8 --network.channel-mult 1 --distance l2 --data pictures"


@dataclass(frozen=True)
class Short:
    """The difference between a text and its short form."""

    add: str = ""
    """Words at the end of a command."""
    instead: dict[str, str] = field(default_factory=dict)
    """Texts that are replaced."""
    makes: str = ""
    """Files and folders that have to be there afterwards."""

    def of(self, text):
        """Return the short form of a text."""
        for old, new in self.instead.items():
            assert old in text, f"{old!r} is not in {text!r}"
            text = text.replace(old, new)
        return f"{text} {self.add}".strip()


HERE = {
    "cm-ray train ct_digits --distance pseudo-huber --distance.c 0.03 --times.scales adaptive "
    "--times.scales.s1 20": Short(TINY, makes="runs/ct_digits/result.json"),
    "cm-ray train ct_digits --distance pseudo-huber --help": Short(),
    "cm-ray train ct_digits --distance pseudo-huber --distance.c 0.03": Short(f"{TINY} --run-dir runs/b"),
    "cm-ray train ict_digits --times tuned --times.q 4 --times.stages 4": Short(f"{TINY} --run-dir runs/c"),
    "cm-ray train ct_cifar10 --network ddpm++ --network.dropout 0.2 --column vp": Short(TINY_CIFAR),
    "cm-ray train ct_cifar10 --help": Short(),
    "cm-ray train ct_cifar10 --steps 20 --batch-size 32 --distance l2 --run-dir runs/small "
    "--network.channels 32 --network.channel-mult 1 2 --network.blocks 1": Short(
        "--data pictures --evaluation.extractor none --evaluation.every 0 --evaluation.grid 2 "
        "--tracking-uri none",
        instead={"--steps 20 --batch-size 32": "--steps 2 --batch-size 4"},
        makes="runs/small/result.json",
    ),
    "cm-ray train ict --data photos/ --data.size 64 --steps 100000": Short(
        "--batch-size 4 --network.channels 8 --network.channel-mult 1 1 --network.blocks 1 "
        "--network.norm-groups 4 --evaluation.every 0 --evaluation.grid 2 --tracking-uri none",
        instead={"--steps 100000": "--steps 2", "size 64": "size 32"},
        makes="runs/ict_32/result.json",
    ),
    "cm-ray train ict_digits --averages power --run-dir runs/power": Short(
        TINY, makes="runs/power/result.json"
    ),
    "cm-ray train ict_digits": Short(f"{TINY} --run-dir runs/alone", makes="runs/alone/result.json"),
    "cm-ray train ict_digits --tracking-uri none": Short(
        f"{_UNTRACKED} --network.channels 8 --network.head-channels 8 --run-dir runs/started",
        makes="runs/started/result.json",
    ),
    "cm-ray train sct_digits": Short(f"{TINY} --warmup 1", makes="runs/sct_digits/result.json"),
    "cm-ray train trigflow_digits": Short(f"{TINY} --run-dir runs/t", makes="runs/t/result.json"),
    "cm-ray train ncsn_digits --method ssm --run-dir runs/ssm": Short(
        f"{TINY} --evaluation.samplers heun:2", makes="runs/ssm/result.json"
    ),
    "cm-ray train ncsn_digits --network refinenet --network.channels 16 --network.levels 10 "
    "--run-dir runs/ncsn_refinenet": Short(
        "--steps 2 --batch-size 4 --checkpoint.every 2 --evaluation.every 0 --evaluation.grid 2 "
        "--evaluation.extractor none --evaluation.samplers heun:2 --tracking-uri none",
        instead={"channels 16": "channels 4"},
        makes="runs/ncsn_refinenet/result.json",
    ),
    "cm-ray train ve_cifar10 --network.blocks 8 --steps 950000 --run-dir runs/ve_deep": Short(
        "--batch-size 2 --network.channels 8 --network.norm-groups 4 --data pictures --data.size 32 "
        "--optimizer.warmup-steps 0 --evaluation.grid 2 --evaluation.extractor none "
        "--evaluation.samplers heun:2 --tracking-uri none",
        instead={"--network.blocks 8 --steps 950000": "--network.blocks 1 --steps 2"},
        makes="runs/ve_deep/result.json",
    ),
    "cm-ray train ncsnv2_digits": Short(TINY, makes="runs/ncsnv2_digits/result.json"),
    "cm-ray train ve_digits --network refinenet --network.channels 32 --run-dir runs/refinenet": Short(
        "--steps 2 --batch-size 4 --checkpoint.every 2 --evaluation.every 0 --evaluation.grid 2 "
        "--evaluation.extractor none --evaluation.samplers heun:2 --tracking-uri none",
        instead={"channels 32": "channels 4"},
        makes="runs/refinenet/result.json",
    ),
    "cm-ray train vp_digits": Short(
        f"{TINY} --evaluation.samplers ode,rtol=0.1,atol=0.1 --run-dir runs/v", makes="runs/v/result.json"
    ),
    "cm-ray train vp_digits --times log-uniform --run-dir runs/vp_likelihood": Short(
        f"{TINY} --evaluation.samplers heun:2", makes="runs/vp_likelihood/result.json"
    ),
    "cm-ray train cd_digits --teacher vp_digits --column vp --run-dir runs/cd_of_vp": Short(
        TINY, makes="runs/cd_of_vp/result.json"
    ),
    "cm-ray train pd_digits --teacher vp_digits --column vp --weight snr --run-dir runs/pd_of_vp": Short(
        TINY.replace("--steps 2", "--steps 16"), makes="runs/pd_of_vp/rounds/1"
    ),
    "cm-ray train ect_digits --init-from vp_digits --column vp --run-dir runs/ect_of_vp": Short(
        TINY, makes="runs/ect_of_vp/result.json"
    ),
    "cm-ray train scd_digits --teacher vp_digits --column vp --sigma-data 0.75 "
    "--run-dir runs/scd_of_vp": Short(TINY, makes="runs/scd_of_vp/result.json"),
    "cm-ray train scd_digits --teacher trigflow_digits": Short(TINY, makes="runs/scd_digits/result.json"),
    "cm-ray train tcm_digits --teacher ict_digits": Short(TINY, makes="runs/tcm_digits/result.json"),
    "cm-ray train meanflow_digits": Short(f"{TINY} --run-dir runs/m", makes="runs/m/result.json"),
    "cm-ray train meanflow_digits --column trigflow --column.sigma-data 0.75 --init-from "
    "trigflow_digits": Short(f"{TINY} --run-dir runs/n", makes="runs/n/result.json"),
    "cm-ray train shortcut_digits": Short(TINY, makes="runs/shortcut_digits/result.json"),
    "cm-ray sample runs/meanflow_digits --nfe 4": Short(makes="samples.npz"),
    "cm-ray sample runs/meanflow_digits --sampler jumps@2.0,0.5": Short(makes="samples.npz"),
    "cm-ray train edm2_digits": Short(f"{TINY_EDM2} --run-dir runs/edm2", makes="runs/edm2/result.json"),
    "cm-ray train edm_digits": Short(f"{TINY} --run-dir runs/d", makes="runs/d/result.json"),
    "cm-ray train cd_digits --teacher edm_digits": Short(TINY, makes="runs/cd_digits/result.json"),
    "cm-ray train pd_digits --teacher edm_digits": Short(
        TINY.replace("--steps 2", "--steps 16"), makes="runs/pd_digits/rounds/16 runs/pd_digits/rounds/1"
    ),
    "cm-ray train ect_digits --init-from edm_digits": Short(TINY, makes="runs/ect_digits/result.json"),
    "cm-ray train ict_digits --network custom --network.path my_project.networks:MyNetwork": Short(
        "--steps 2 --batch-size 4 --evaluation.every 0 --evaluation.extractor none --tracking-uri none "
        "--run-dir runs/e",
        makes="runs/e/result.json",
    ),
    "cm-ray sample runs/ict_digits --samples 25 --nfe 2 --label 7": Short(makes="samples.png samples.npz"),
    "cm-ray sample runs/demo --samples 25 --nfe 2 --label 7": Short(makes="samples.png samples.npz"),
    "cm-ray sample runs/own --own-code my_project.networks:MyNetwork": Short(makes="samples.npz"),
    "cm-ray train edm_digits --network.label-dropout 0.1 --run-dir runs/dropped": Short(
        TINY, instead={"--run-dir runs/dropped": "--run-dir runs/new"}, makes="runs/new/result.json"
    ),
    "cm-ray train cd_digits --teacher runs/dropped --guidance fixed --guidance.scale 2 --run-dir "
    "runs/cd_fixed": Short(TINY, makes="runs/cd_fixed/result.json"),
    "cm-ray train cd_digits --teacher runs/dropped --guidance drawn --guidance.high 4 --run-dir "
    "runs/cd_drawn": Short(
        TINY, instead={"--run-dir runs/cd_drawn": "--run-dir runs/new"}, makes="runs/new/result.json"
    ),
    "cm-ray sample runs/cd_drawn --guidance 3 --nfe 2": Short(makes="samples.npz"),
    "cm-ray sample runs/dropped --label null": Short(makes="samples.npz"),
    "cm-ray sample runs/dropped --guidance 2 --label 7": Short(makes="samples.npz"),
    "cm-ray sample runs/dropped --sampler euler:40,guidance=2": Short(
        "--samples 4", instead={"euler:40": "euler:2"}, makes="samples.npz"
    ),
    "cm-ray sample runs/dropped --guidance 2 --weak runs/weaker": Short(
        "--samples 4", instead={"runs/weaker": "runs/edm_digits"}, makes="samples.npz"
    ),
    "cm-ray sample runs/edm_digits --sampler dpm2:10": Short(makes="samples.npz"),
    "cm-ray sample runs/edm_digits --sampler pc:100,sde=vp,predictor=ancestral": Short(
        "--samples 4", instead={"pc:100": "pc:3"}, makes="samples.npz"
    ),
    "cm-ray sample runs/edm_digits --sampler langevin:60,repeats=3": Short(
        "--samples 4", instead={"langevin:60": "langevin:3"}, makes="samples.npz"
    ),
    "cm-ray sample runs/edm_digits --sampler ode,rtol=1e-4,atol=1e-4": Short(
        "--samples 4", instead={"1e-4": "1e-2"}, makes="samples.npz"
    ),
    "cm-ray sample runs/cd_digits --nfe 4": Short(instead={"cd_digits": "demo"}, makes="samples.npz"),
    "cm-ray sample runs/demo --ts 0,22,39 --boundaries 40": Short(makes="samples.npz"),
    "cm-ray sample runs/demo --nfe 3": Short(makes="samples.npz"),
    "cm-ray edit inpaint --model runs/ict_digits --image digit.png --mask mask.png --label 3": Short(
        "--nfe 4", makes="edits/digit-0.png edits/grid.png"
    ),
    "cm-ray edit inpaint --model runs/demo --image 3.png --mask mask.png --label 3": Short(
        "--nfe 4", makes="edits/3-0.png"
    ),
    "cm-ray classifier runs/edm_digits --data digits --out runs/digits_classifier": Short(
        "--steps 2 --batch-size 4 --channels 8",
        instead={"runs/digits_classifier": "runs/made"},
        makes="runs/made/classifier.json runs/made/weights.safetensors",
    ),
    "cm-ray sample runs/edm_digits --classifier runs/digits_classifier --class-scale 2 --label 7": Short(
        "--sampler heun:2", makes="samples.npz"
    ),
    "cm-ray edit inpaint --model runs/edm_digits --image 3.png --mask mask.png --label 3": Short(
        "--nfe 4 --samples 1 --out edits-d", makes="edits-d/grid.png"
    ),
    "cm-ray edit upscale --model runs/edm_digits --image 3.png --label 3 "
    "--sampler pc:100,sde=vp,corrections=4": Short(
        "--samples 1 --out edits-e", instead={"pc:100": "pc:2"}, makes="edits-e/grid.png"
    ),
    "cm-ray edit upscale --model runs/demo --image 3.png --label 3 --factor 4": Short(
        "--nfe 4", makes="edits/3-0.png"
    ),
    "cm-ray edit stroke --model runs/demo --image strokes.png --label 3 --taus 1.0 0.5": Short(
        makes="edits/strokes-0.png"
    ),
    "cm-ray edit denoise --model runs/demo --image 3.png --label 3 --sigma 0.5 --add-noise": Short(
        makes="edits/3-0.png"
    ),
    "cm-ray edit interpolate --model runs/demo --seed 0 --to-seed 1 --label 3": Short(
        makes="edits/way-0-0.png"
    ),
    "cm-ray export runs/ict_digits --format diffusers --out digits-pipeline": Short(
        makes="digits-pipeline/model_index.json"
    ),
    "cm-ray export runs/demo --format diffusers --out demo": Short(makes="demo/model_index.json"),
    "cm-ray export runs/demo --format safetensors --out demo": Short(makes="demo.safetensors"),
}
"""Commands that are run here, without Ray; trainings by the trainer of this process."""

ON_RAY = {
    "cm-ray score runs/ict_digits --scores FD KID precision recall": Short(
        "--samples 100 --grid 2 --tracking-uri none --actors.count 1 --actors.cpus-each 0.5",
        makes="runs/evaluate-ict_digits/scores.md",
    ),
    "cm-ray time-points runs/ict_digits --nfe 3": Short(
        "--boundaries 6 --budget 96 --first 80 --passes 0 --tracking-uri none --actors.cpus-each 0.5",
        makes="runs/time_points-ict_digits/result.json",
    ),
    "cm-ray shards /data/photos --out /data/photos-64 --size 64": Short(
        instead={"/data/photos-64": "photos-64", "/data/photos": "photos"}, makes="photos-64/manifest.json"
    ),
}
"""Commands that are run on Ray."""

_REGISTRY = "needs a registered model; tests/tracking has a registry"
_WEIGHTS = "needs published weights; tests/networks reads files of their formats"
_LONG = "its parts are run by the tests of tests/cluster"
_AUTO = "is run by tests/cluster/test_automatic_training.py and tests/budget/test_time_plan.py"

ONLY_PARSED = {
    "cm-ray train auto --data photos/ --data.size 64 --hours 2 --dry-run": _AUTO,
    "cm-ray train auto --data photos/ --data.size 64 --hours 2": _AUTO,
    "cm-ray train ct_digits --run-dir s3:": "needs a store; tests/cluster/test_remote_runs.py has one",
    "cm-ray train ct_cifar10 --data /data/cifar10 --num-workers 2:8": "needs nodes that come and go; "
    "tests/cluster/test_elastic.py has some",
    "make ": "is about this checkout as a whole",
    ".venv/bin/python -m pytest ": "is this test suite",
    "docker ": "needs Docker",
    "kubectl ": "needs Kubernetes",
    "echo ": "needs openssl",
    "export ": "sets variables of a shell",
    "ray ": "is run by tests/jobs/test_ray_jobs.py",
    "pip install ": "is checked by tests/packaging",
    "mlflow ": "starts a server",
    "optuna-dashboard ": "starts a server",
    "tensorboard ": "starts a server",
    "cm-ray train ict_digits --steps 200": "is like cm-ray train ict_digits, which is run",
    "cm-ray app ": "starts a server; tests/page has a browser",
    "cm-ray serve ": "starts a server; tests/cluster/test_serving.py asks one",
    "curl ": "asks a server",
    "cm-ray track ": "is run by tests/tracking",
    "cm-ray paper-table": _LONG,
    "cm-ray sweep ": _LONG,
    "python benchmarks/": "measures for minutes",
    "PYTHONPATH=. python benchmarks/": "measures for minutes, most of it on a GPU",
    "cm-ray sample models:/": _REGISTRY,
    "cm-ray time-points models:/": _REGISTRY,
    "cm-ray score models:/": _REGISTRY,
    "cm-ray edit colorize --model models:/": _REGISTRY,
    "cm-ray train cd_cifar10 --teacher ": _WEIGHTS,
    "cm-ray train cd_imagenet64 ": _WEIGHTS,
    "cm-ray sample cd_imagenet64_l2.pt ": _WEIGHTS,
    "cm-ray sample diffusers-cd_imagenet64_l2 ": _WEIGHTS,
    "cm-ray score runs/own ": "is run by tests/cluster/test_own_code_on_ray.py",
    "cm-ray score runs/demo ": "is like the scores of runs/ict_digits",
    "cm-ray score runs/dropped ": "is run by tests/cluster/test_evaluate.py",
    "cm-ray score samples.npz --data /data/photos --extractor inception-2015": _WEIGHTS,
    "cm-ray score /data/cifar10/test ": _WEIGHTS,
    "cm-ray train ct_cifar10": "is run for images of one's own; CIFAR-10 would be downloaded",
    "cm-ray train ict_digits --tracking-uri http://host:5000": "needs a server; tests/tracking starts one",
    "cm-ray train ct_imagenet64 ": "needs 8 GPUs",
    "cm-ray train edm2_imagenet64 ": "needs 8 GPUs; edm2_digits is run",
    "cm-ray train sct_cifar10": "is like sct_digits; CIFAR-10 would be downloaded",
    "cm-ray train tcm_cifar10 ": "is like tcm_digits; CIFAR-10 would be downloaded",
    "cm-ray train tcm --data photos/ ": "is like ict, which is run, with a teacher as in tcm_digits",
    "cm-ray train sct --data photos/ ": "is like ict, which is run",
    "cm-ray train ve_cifar10": "is like vp_digits; CIFAR-10 would be downloaded",
    "cm-ray train meanflow_cifar10": "is like meanflow_digits; CIFAR-10 would be downloaded",
    "cm-ray train meanflow --data photos/ ": "is like ict, which is run",
    "cm-ray train edm --data photos/ ": "is like ict, which is run",
    "cm-ray averages ": "is run by tests/cluster/test_scored_lengths.py",
    "cm-ray likelihood ": "is run by tests/cluster/test_likelihood_of_data.py",
    "cm-ray sample runs/photos": "is like that of runs/demo; tests/drawing has classes by their names",
    "cm-ray shards /data/photos.zip ": "is like the shards of a folder; tests/data reads archives",
    "cm-ray memory ": "counts or measures for a minute; tests/budget counts small networks",
    "cm-ray export runs/demo --format onnx ": "takes PyTorch ten seconds; tests/networks has it",
    "cm-ray time-points runs/demo ": "is like the search of runs/ict_digits",
}
"""Beginnings of commands that are only parsed, and why."""

_CHANGES = "changes=SMALL"
_OWN_LOOP = (
    "import torch\n\nf = cm.Consistency(network, cm.EDM(sigma_data=0.5))\nloss = cm.ConsistencyTraining("
)
SNIPPETS = {
    'import cm_ray as cm\n\nrun = cm.train("ict_digits", out="runs/digits")  # three minutes': Short(
        instead={'out="runs/digits")': f'out="runs/new", {_CHANGES})'}, makes="sevens.png"
    ),
    'run = cm.train("ict", data="photos/", size=32, out="runs/photos", steps=100_000)': Short(
        instead={"steps=100_000": "steps=2, changes=SMALL_CIFAR", 'out="runs/photos"': 'out="runs/mine"'},
        makes="runs/mine/result.json",
    ),
    'recipe = cm.override(cm.recipes.ict_digits(), {"steps": 300': Short(
        instead={'{"steps": 300, ': "{**SMALL, ", "% 100": "% 2"}
    ),
    'model = cm.load("runs/digits")\nmodel.inpaint(': Short(
        instead={'("FD", "KID"))': '("FD", "KID"), n=100)'},
        makes="inpainted.png between.png digits-pipeline/model_index.json",
    ),
    'classifier = cm.train_classifier("runs/edm_digits"': Short(
        instead={
            '"runs/new_classifier")': (
                '"runs/new_classifier", training=ClassifierTraining(steps=2, batch_size=4), channels=8)\n'
                'model = cm.load("runs/edm_digits")'
            ),
            "classifier = cm.": (
                "from cm_ray.training.noise_classifier import ClassifierTraining\nclassifier = cm."
            ),
            "model.sample(16, ": 'model.sample(4, sampler="heun:2", ',
        },
        makes="runs/new_classifier/classifier.json",
    ),
    f"{_OWN_LOOP}  #": Short(instead={"range(10_000)": "range(2)"}),
    f"{_OWN_LOOP}\n": Short(),
    'import cm_ray as cm\n\nrun = cm.train("ict_digits", out="runs/digits")\nrun = cm.train("ict", ': Short(
        instead={
            'out="runs/digits")': f'out="runs/new", {_CHANGES})',
            "steps=100_000": "steps=2, changes=SMALL_CIFAR",
            'out="runs/photos"': 'out="runs/mine"',
            'cm.train("ct_cifar10", changes={"distance": "l2", "batch_size": 128}, device="cuda")': (
                'cm.train("ct_cifar10", data="pictures", changes={**SMALL_CIFAR, "distance": "l2"})'
            ),
        }
    ),
    "recipe = cm.recipes.ict_digits()\ntrainer = ": Short(
        instead={
            "cm.recipes.ict_digits()": "cm.override(cm.recipes.ict_digits(), SMALL)",
            "% 300": "% 2",
            'out="runs/digits"': 'out="runs/new"',
        }
    ),
    'model = cm.load("runs/digits")\nsamples = model.sample(16, steps=2': Short(
        instead={'"onnx", "model.onnx"': '"safetensors", "model.safetensors"'},
        makes="samples.png model.safetensors models/digits/model.json",
    ),
    'scores = cm.score(model, "photos/"': Short(
        instead={
            'n=10_000, extractor="inception-2015"': 'n=100, extractor="my_project.networks:Means"',
            'cm.score("my_samples.npz", "cifar10", kinds=("FD", "precision", "recall"))': (
                'cm.score("my_samples.npz", "digits", kinds=("FD", "precision"), extractor="digits")'
            ),
        }
    ),
    "from my_project.networks import MyNetwork\n\nmodel = cm.load(": Short(),
    "from my_project.networks import MyNetwork\n\ncm.Trainer": Short(
        instead={'data="photos/", ': "", 'out="runs/own"': 'out="runs/mine"'}, makes="runs/mine/result.json"
    ),
    'import cm_ray as cm\n\nrecipe = cm.override(\n    cm.recipes.ct_digits(), {"distance"': Short(),
    "from cm_ray import recipes\n": Short(),
    "method = cm.": Short(),
    'print(cm.survey("photos/"))\nimages = cm.load_images("photos/", size=64, split="test")': Short(
        instead={'"photos/"': '"split/"'}
    ),
}
"""Snippets of Python by their beginnings."""
ONLY_CHECKED = {
    "import base64, json, urllib.request": "asks a server; tests/cluster/test_serving.py does the same",
    "model.sample(16, seed=seed, steps=2, batch_size=16)": "is compared by tests/cluster/test_serving.py",
    "import cm_ray as cm\nfrom cm_ray.metrics.extractors.registry import open_extractor": (
        "trains for minutes; tests/drawing/test_autoguidance.py samples with guidance"
    ),
    'small = {"network.conditional": False': (
        "trains for minutes; tests/sampling/test_class_guidance.py samples with a classifier"
    ),
    'model.sample(16, label="7", guidance=2.0)': "is run by tests/drawing/test_autoguidance.py",
    "run = cm.cluster.train(": "is run by tests/cluster/test_interface.py",
    "import cm_ray as cm\n\nrun = cm.cluster.train(": "is run by tests/cluster/test_interface.py",
    'import cm_ray as cm\n\nrun = cm.load("runs/power")': "needs a run of some length; tests/api has one",
    'images = cm.load_images("cifar100.parquet"': "needs CIFAR-100; tests/data reads its layout",
}
"""Beginnings of snippets whose names are checked only, and why."""
