"""The container files agree with their specifications, with each other and with the code.

No engine is needed: hadolint reads the Dockerfiles, the published schemas of Compose and Kubernetes the YAML
files, and the flags, options, paths and versions in them are looked up where they are defined.
"""

import copy
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import kubernetes_validate
import pytest
import yaml
from docker.utils.build import exclude_paths
from mlflow.server.security_utils import is_allowed_host_header
from packaging.requirements import Requirement

from cm_ray.command_line.recipe_options import ALIASES
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings.tree import flatten

REPO = Path(__file__).parents[2]
DOCKER = REPO / "docker"
DOCKERFILES = ("Dockerfile", "Dockerfile.cpu")
COMPOSE_FILES = ("compose.yaml", "compose.gpu.yaml")
PYPROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
KUBERNETES_VERSION = "1.32"

TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}
POD_TEMPLATE = {
    "type": "object",
    "required": ["spec"],
}  # its inside is checked against Kubernetes' own schema


def closed(required: str = "", **properties: object) -> dict:
    """Return the schema of an object that has no other keys than `properties`."""
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return schema | {"required": required.split()}


WORKER_GROUP = closed(
    "groupName minReplicas maxReplicas rayStartParams template",
    groupName={"type": "string"},
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts={"type": "integer", "minimum": 1},
    idleTimeoutSeconds=COUNT,
    rayStartParams=TEXTS,
    template=POD_TEMPLATE,
)
RAY_CLUSTER_SPEC = closed(
    "rayVersion headGroupSpec workerGroupSpecs",
    rayVersion={"type": "string"},
    authOptions=closed("mode", mode={"enum": ["disabled", "token"]}, secretName={"type": "string"}),
    enableInTreeAutoscaling={"type": "boolean"},
    headGroupSpec=closed("rayStartParams template", rayStartParams=TEXTS, template=POD_TEMPLATE),
    workerGroupSpecs={"type": "array", "items": WORKER_GROUP, "minItems": 1},
)
RAY_JOB_SPEC = closed(
    "entrypoint rayClusterSpec",
    activeDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    entrypoint={"type": "string"},
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    metadata=TEXTS,
    rayClusterSpec=RAY_CLUSTER_SPEC,
    runtimeEnvYAML={"type": "string"},
    shutdownAfterJobFinishes={"type": "boolean"},
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
    suspend={"type": "boolean"},
    ttlSecondsAfterFinished=COUNT,
)
RAY_JOB = closed(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=closed("name", name={"type": "string"}, namespace={"type": "string"}, labels=TEXTS),
    spec=RAY_JOB_SPEC,
)
"""Our own schema of a RayJob, from KubeRay's API reference: the fields of use here, and no others."""


@functools.cache
def instructions(name: str) -> list[tuple[str, str]]:
    """Return the (KEYWORD, arguments) of a Dockerfile, continued lines joined and comments dropped."""
    lines = [line for line in (DOCKER / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0].upper(), line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def arguments(name: str, keyword: str) -> list[str]:
    """Return the arguments of every `keyword` instruction of a Dockerfile, in order."""
    return [rest for found, rest in instructions(name) if found == keyword]


def copied(name: str) -> list[str]:
    """Return the sources of every COPY of a Dockerfile."""
    words = [[word for word in rest.split() if not word.startswith("--")] for rest in arguments(name, "COPY")]
    return [source for sources in words for source in sources[:-1]]


def environment(name: str) -> dict[str, str]:
    """Return the variables that a Dockerfile sets."""
    return dict(pair.split("=", 1) for rest in arguments(name, "ENV") for pair in shlex.split(rest))


def compose(name: str) -> dict:
    """Return a compose file, parsed."""
    return yaml.safe_load((DOCKER / name).read_text())


def services() -> dict[str, dict]:
    """Return the services of compose.yaml."""
    return compose("compose.yaml")["services"]


def rayjob_documents() -> tuple[dict, dict]:
    """Return the claim and the RayJob of rayjob.yaml."""
    claim, job = yaml.safe_load_all((DOCKER / "rayjob.yaml").read_text())
    return claim, job


def store_job() -> dict:
    """Return the RayJob of rayjob_store.yaml."""
    return yaml.safe_load((DOCKER / "rayjob_store.yaml").read_text())


def ray_groups() -> list[dict]:
    """Return the head group and the worker groups of rayjob.yaml."""
    cluster = rayjob_documents()[1]["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pinned(package: str) -> str:
    """Return the version to which constraints.txt pins a package."""
    found = re.search(
        rf"^{package}(?:\[.*\])?==([^\s;+]+)", (REPO / "constraints.txt").read_text(), re.MULTILINE
    )
    assert found, f"constraints.txt does not pin {package}"
    return found[1]


def commands() -> list[list[str]]:
    """Return every `python jobs/...` command line in the container files, as words."""
    texts = [job["spec"]["entrypoint"] for job in (rayjob_documents()[1], store_job())]
    texts += [(DOCKER / "README.md").read_text()]
    texts += [" ".join(json.loads(rest)) for name in DOCKERFILES for rest in arguments(name, "CMD")]
    lines = [line.split("  #")[0] for text in texts for line in text.splitlines()]
    return [shlex.split(found[0]) for line in lines if (found := re.search(r"python jobs/.*", line))]


def check_compose(document: dict) -> None:
    """Raise ValidationError unless `document` follows the Compose Specification."""
    package = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.Draft202012Validator(json.loads(package.read_text())).validate(document)


def check_rayjob(job: dict) -> None:
    """Raise ValidationError unless `job` is a RayJob whose pods Kubernetes would take."""
    jsonschema.Draft202012Validator(RAY_JOB).validate(job)
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name):
    hadolint = Path(sys.executable).parent / "hadolint"
    run = subprocess.run([hadolint, "--no-color", DOCKER / name], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, ""), run.stdout + run.stderr


def test_base_images_are_pinned_and_of_our_ray_and_python():
    (gpu,), (cpu,) = (arguments(name, "FROM") for name in DOCKERFILES)
    assert re.fullmatch(rf"rayproject/ray:{re.escape(pinned('ray'))}-py311-(gpu|cu\d+)", gpu)
    assert re.fullmatch(r"python:3\.11(\.\d+)?-slim-\w+", cpu)
    assert PYPROJECT["requires-python"] == ">=3.11"


def test_ray_versions_agree():
    train = map(Requirement, PYPROJECT["optional-dependencies"]["train"])
    (requirement,) = (requirement for requirement in train if requirement.name == "ray")
    assert requirement.specifier.contains(pinned("ray"))
    assert rayjob_documents()[1]["spec"]["rayClusterSpec"]["rayVersion"] == pinned("ray")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_copied_files_exist_and_are_in_the_build_context(name):
    patterns = (REPO / ".dockerignore").read_text().splitlines()
    context = exclude_paths(str(REPO), [p for p in patterns if p and not p.startswith("#")])
    assert {"pyproject.toml", "setup.py", "constraints.txt", "cm_ray", "jobs", "search_spaces"} <= set(
        copied(name)
    )
    for source in copied(name):
        assert (REPO / source).exists(), f"COPY {source}: there is no such file"
        assert source in context, f"COPY {source}: .dockerignore keeps it out"
    stray = {path.split("/")[0] for path in context} - set(copied(name)) - {".dockerignore", "Dockerfile"}
    assert not stray, f"sent to the engine, but never copied: {stray}"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dependencies_are_installed_before_the_source_is_copied(name):
    steps = [f"{keyword} {rest}" for keyword, rest in instructions(name)]
    (dependencies,) = (
        i for i, step in enumerate(steps) if "-r /tmp/requirements.txt -c constraints.txt" in step
    )
    (project,) = (i for i, step in enumerate(steps) if "--no-deps -e ." in step)
    sources = [i for i, step in enumerate(steps) if re.match(r"COPY .*\b(cm_ray|jobs|search_spaces)$", step)]
    assert len(sources) == 3
    assert dependencies < min(sources)
    assert max(sources) < project
    pips = [pip for step in steps for pip in re.findall(r"pip install[^&]*", step)]
    assert all("--no-cache-dir" in pip for pip in pips)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_run_as_the_user_ray_in_the_project(name):
    assert arguments(name, "USER")[-1] == "1000:100"
    assert arguments(name, "WORKDIR") == ["/home/ray/cm_ray"]
    for group in ray_groups():
        spec = group["template"]["spec"]
        assert spec["containers"][0]["workingDir"] == "/home/ray/cm_ray"
        assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (1000, 100)


def test_image_names_carry_the_version_of_the_project():
    version = PYPROJECT["version"]
    for name in DOCKERFILES:
        assert f'org.opencontainers.image.version="{version}"' in " ".join(arguments(name, "LABEL"))
    assert {service["image"] for service in services().values()} == {f"cm-ray:{version}-cpu"}
    assert {service["image"] for service in compose("compose.gpu.yaml")["services"].values()} == {
        f"cm-ray:{version}"
    }
    images = {group["template"]["spec"]["containers"][0]["image"] for group in ray_groups()}
    assert images == {f"cm-ray:{version}"}
    named = re.findall(r"cm-ray:([\w.-]+)", (DOCKER / "README.md").read_text())
    assert set(named) == {version, f"{version}-cpu"}


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_files_follow_the_specification(name):
    check_compose(compose(name))


@pytest.mark.parametrize(
    ("key", "value"), [("comand", "ray"), ("ports", 8265), ("healthcheck", {"tests": "x"})]
)
def test_a_wrong_compose_file_is_refused(key, value):
    document = compose("compose.yaml")
    document["services"]["ray-head"][key] = value
    with pytest.raises(jsonschema.ValidationError):
        check_compose(document)


def compose_plugin() -> bool:
    """Return whether this machine has `docker compose`."""
    docker = shutil.which("docker")
    return (
        bool(docker) and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not compose_plugin(), reason="docker compose is not installed; the schema was checked")
@pytest.mark.parametrize("names", [COMPOSE_FILES[:1], COMPOSE_FILES])
def test_docker_compose_takes_the_files(names):
    chosen = [word for name in names for word in ("-f", str(DOCKER / name))]
    run = subprocess.run(
        ["docker", "compose", *chosen, "config", "--quiet"],
        env=os.environ | {"RAY_AUTH_TOKEN": "x"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_what_compose_names_exists(name):
    document = compose(name)
    for service in document["services"].values():
        build = service["build"]
        assert (DOCKER / build.get("context", "..") / build["dockerfile"]).is_file()
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(
            document.get("volumes", {})
        )
        assert set(service.get("secrets", [])) <= set(document.get("secrets", {}))
        assert set(service.get("depends_on", {})) <= set(document["services"])
    assert set(document["services"]) <= set(services())


def test_compose_listens_on_the_loopback_only_and_asks_for_a_token():
    for service in services().values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    document = compose("compose.yaml")
    assert document["secrets"] == {"ray_auth_token": {"environment": "RAY_AUTH_TOKEN"}}
    for name in ("ray-head", "ray-worker"):
        variables = services()[name]["environment"]
        assert variables["RAY_AUTH_MODE"] == "token"
        assert variables["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_auth_token"
        assert services()[name]["secrets"] == ["ray_auth_token"]
    assert rayjob_documents()[1]["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_every_node_sees_the_runs_where_the_code_puts_them():
    paths = {"CM_RAY_RUNS": "/runs", "CM_RAY_CACHE": "/runs/cache"}
    for name in DOCKERFILES:
        assert paths.items() <= environment(name).items()
        assert "/runs" in " ".join(arguments(name, "RUN")).split()
    for name in ("ray-head", "ray-worker"):
        assert paths.items() <= services()[name]["environment"].items()
        assert "runs:/runs" in services()[name]["volumes"]
    claim, _ = rayjob_documents()
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in ray_groups():
        spec = group["template"]["spec"]
        assert {v["name"]: v["value"] for v in spec["containers"][0]["env"]} == paths
        assert spec["containers"][0]["volumeMounts"] == [{"name": "runs", "mountPath": "/runs"}]
        claimed = {"claimName": claim["metadata"]["name"]}
        assert spec["volumes"] == [{"name": "runs", "persistentVolumeClaim": claimed}]


def test_environment_variables_are_read_by_something():
    code = "".join(path.read_text() for path in (REPO / "cm_ray").rglob("*.py"))
    library = (files("ray") / "_raylet.so").read_bytes()
    assert [name for name, service in services().items() if "environment" in service] == [
        "ray-head",
        "ray-worker",
    ]
    for variable in services()["ray-head"]["environment"]:
        if variable.startswith("CM_RAY_"):
            assert f'"{variable}"' in code, f"no code of cm_ray reads {variable}"
        else:
            assert variable.removeprefix("RAY_").encode() in library, f"Ray does not read {variable}"


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_ray_start_knows_the_flags():
    from ray.scripts.scripts import start as ray_start

    known = {option for parameter in ray_start.params for option in parameter.opts}
    for name in ("ray-head", "ray-worker"):
        words = services()[name]["command"].split()
        assert words[:2] == ["ray", "start"]
        assert {word.split("=")[0] for word in words[2:]} <= known
    for group in ray_groups():
        assert {f"--{key}" for key in group["rayStartParams"]} <= known


def test_mlflow_server_knows_the_flags_and_lets_the_jobs_in():
    words = shlex.split(services()["mlflow"]["command"])
    assert words[:2] == ["mlflow", "server"]
    flags = dict(zip(words[2::2], words[3::2], strict=True))
    run = subprocess.run(
        [sys.executable, "-m", "mlflow", *words[1:2], "--help"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert set(flags) <= set(re.findall(r"--[a-z][a-z-]*", run.stdout))
    hosts = flags["--allowed-hosts"].split(",")
    addresses = re.findall(r"--tracking-uri http://(\S+)", (DOCKER / "README.md").read_text())
    assert set(addresses) == {f"mlflow:{flags['--port']}"}
    assert all(
        is_allowed_host_header(hosts, host) for host in (*addresses, "127.0.0.1:5000", "localhost:5000")
    )
    assert not is_allowed_host_header(hosts, "elsewhere.example:5000")
    assert flags["--backend-store-uri"].removeprefix("sqlite:///").startswith("/mlflow/")
    assert "/mlflow" in " ".join(arguments("Dockerfile.cpu", "RUN")).split()
    assert services()["mlflow"]["volumes"] == ["mlflow:/mlflow"]


@pytest.mark.parametrize(
    ("name", "port"),
    [("ray-head", "--dashboard-port=8265"), ("ray-worker", "52365"), ("mlflow", "--port 5000")],
)
def test_health_is_asked_at_the_port_that_the_service_opens(name, port):
    service = services()[name]
    kind, python, dash_c, code = service["healthcheck"]["test"]
    assert (kind, python, dash_c) == ("CMD", "python", "-c")
    compile(code, name, "exec")
    number = re.search(r"\d+", port)[0]
    assert f"http://127.0.0.1:{number}/" in code
    assert port in service["command"]
    assert all(published == f"127.0.0.1:{number}:{number}" for published in service.get("ports", []))


def test_workers_wait_for_a_healthy_head():
    assert services()["ray-worker"]["depends_on"] == {"ray-head": {"condition": "service_healthy"}}
    port = re.search(r"--port=(\d+)", services()["ray-head"]["command"])[1]
    assert f"--address=ray-head:{port}" in services()["ray-worker"]["command"]


def test_rayjob_and_claim_follow_their_schemas():
    claim, job = rayjob_documents()
    kubernetes_validate.validate(claim, KUBERNETES_VERSION, strict=True)
    check_rayjob(job)


BREAKAGES = {
    "spec": lambda at: at.spec.update(entryPoint="python x.py"),
    "authentication": lambda at: at.cluster["authOptions"].update(mode="tokens"),
    "head": lambda at: at.head.update(replicas=1),
    "start parameter": lambda at: at.head["rayStartParams"].update({"num-cpus": 0}),
    "worker": lambda at: at.worker.pop("maxReplicas"),
    "container": lambda at: at.pod["containers"][0].update(volumeMount=[]),
    "pod": lambda at: at.pod["securityContext"].update(runAsUser="ray"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_wrong_rayjob_is_refused(breakage):
    job = copy.deepcopy(rayjob_documents()[1])
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    head, worker = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]
    places = SimpleNamespace(
        spec=spec, cluster=cluster, head=head, worker=worker, pod=worker["template"]["spec"]
    )
    BREAKAGES[breakage](places)
    with pytest.raises(jsonschema.ValidationError):
        check_rayjob(job)


def test_rayjob_has_a_gpu_for_every_training_worker_and_cleans_up():
    spec = rayjob_documents()[1]["spec"]
    wanted = int(re.search(r"--num-workers (\d+)", spec["entrypoint"])[1])
    offered = 0
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        offered += group["replicas"] * int(limits["nvidia.com/gpu"])
        assert int(limits["cpu"]) > int(limits["nvidia.com/gpu"]), (
            "Ray Data needs CPUs beyond the workers' own"
        )
    assert offered == wanted
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0


def test_the_jobs_exist_and_know_the_options():
    known = set(flatten(Recipe())) | {"help"}
    assert len(commands()) >= 6
    for _, job, *words in commands():
        assert (REPO / job).is_file(), f"{job} does not exist"
        for option in (word for word in words if word.startswith("--")):
            path = (
                {short: path for path, short in ALIASES.items()}.get(option, option)
                .removeprefix("--")
                .replace("-", "_")
            )
            assert path in known, f"{job} has no option {option}"
    assert "--run-dir /runs/" in rayjob_documents()[1]["spec"]["entrypoint"]


def test_readme_names_the_files_that_are_there():
    readme = (DOCKER / "README.md").read_text()
    files = (path for path in DOCKER.iterdir() if path.is_file() and not path.name.startswith("."))
    there = {path.name for path in files} - {"README.md"}
    assert {Path(name).name for name in re.findall(r"`([\w.]*(?:Dockerfile|\.yaml)[\w.]*)`", readme)} == there
    for path in re.findall(r"docker/[\w.]+", readme):
        assert (REPO / path).exists() or path == "docker/.env"


def test_the_rayjob_without_a_shared_volume_differs_in_storage_alone():
    check_rayjob(store_job())
    without, shared = copy.deepcopy(store_job()), copy.deepcopy(rayjob_documents()[1])
    entrypoint = without["spec"].pop("entrypoint")
    assert entrypoint == shared["spec"].pop("entrypoint").replace("/runs/", "s3://BUCKET/runs/").replace(
        "--data ", "--data s3://BUCKET/"
    )
    for job in (without, shared):
        cluster = job["spec"]["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            spec = group["template"]["spec"]
            container = spec["containers"][0]
            cache = {each["name"]: each["value"] for each in container.pop("env")}["CM_RAY_CACHE"]
            (mount,), (volume,) = container.pop("volumeMounts"), spec.pop("volumes")
            assert cache.startswith(mount["mountPath"])
            if job is without:
                assert volume.keys() == {"name", "emptyDir"}
                assert container.pop("envFrom") == [{"secretRef": {"name": "cm-ray-store"}}]
    assert without == shared
