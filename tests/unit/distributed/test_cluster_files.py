"""The files in cluster/, as far as they can be checked without a cloud: every key, flag and name exists and fits."""

import copy
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.unit.distributed.kuberay_schema import SCHEMAS

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster"
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
RAY = re.search(r"^ray==(\S+)", CONSTRAINTS, re.MULTILINE)[1]
IMAGE = "REGISTRY/raysoft:cpu"


def text(name):
    return (CLUSTER / name).read_text()


def documents(name):
    return list(yaml.safe_load_all(text(name)))


def test_every_file_has_its_test():
    assert {path.name for path in CLUSTER.iterdir()} == {
        "README.md",
        "Containerfile",
        "runtime_env.yaml",
        "aws.yaml",
        "gcp.yaml",
        "on-premise.yaml",
        "kuberay-cluster.yaml",
        "kuberay-job.yaml",
        "slurm.sh",
    }


# -------------------------------------------------------------------------------------------------------- ray's options


def ray_command(words):
    """The command that `ray WORDS...` leads to, with its own options."""
    from ray.scripts.scripts import cli

    command, at = cli, 0
    while hasattr(command, "commands"):
        assert words[at] in command.commands, f"ray has no command {' '.join(words[: at + 1])}"
        command, at = command.commands[words[at]], at + 1
    return command, words[at:]


def options(command):
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def check_ray_command(words, also=frozenset()):
    command, rest = ray_command(words)
    rest = rest[: rest.index("--")] if "--" in rest else rest
    flags = [word.partition("=")[0] for word in rest if word.startswith("-")]
    unknown = set(flags) - options(command) - also
    assert not unknown, f"ray {' '.join(words)}: {unknown}"
    return flags


def ray_calls(script):
    """Words of each `ray ...` command of a shell text, continued lines joined, up to what ends it."""
    for line in script.replace("\\\n", " ").splitlines():
        for part in re.split(r"[;&|]+|\s#\s", line):
            part = re.sub(r"^\s*(\w+=\S+\s+)+", "", part).strip()
            if part.startswith("ray "):
                yield shlex.split(part.split(" > ")[0])[1:]


def test_the_search_for_unknown_options_finds_them():
    check_ray_command(["start", "--head", "--port=1"])
    with pytest.raises(AssertionError, match="--gcs"):
        check_ray_command(["start", "--gcs=1"])
    with pytest.raises(AssertionError, match="no command job begin"):
        check_ray_command(["job", "begin"])
    assert list(ray_calls("A=b ray stop; ray up x --yes > y &\n# ray no")) == [["stop"], ["up", "x", "--yes"]]


# ------------------------------------------------------------------------------------------------------------- launcher

LAUNCHERS = ("aws.yaml", "gcp.yaml", "on-premise.yaml")


def prepared(tree):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(tree)
    validate_config(config)
    return config


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher_files_are_what_ray_up_accepts(name):
    [tree] = documents(name)
    config = prepared(copy.deepcopy(tree))
    assert config["head_node_type"] in config["available_node_types"]
    with pytest.raises(Exception, match="unheard_of"):
        prepared({**copy.deepcopy(tree), "unheard_of": 1})
    if tree["provider"]["type"] == "local":
        assert config["max_workers"] == len(tree["provider"]["worker_ips"])
    else:
        types = tree["available_node_types"]
        assert types["head"]["resources"] == {"CPU": 0}
        assert types["worker"]["min_workers"] == 0
        assert types["worker"]["max_workers"] == tree["max_workers"]
        assert tree["docker"]["image"] == IMAGE


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher_files_start_ray_with_a_token_and_a_private_dashboard(name):
    [tree] = documents(name)
    assert tree["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for role in ("head", "worker"):
        commands = "\n".join(tree[f"{role}_start_ray_commands"])
        calls = list(ray_calls(commands))
        assert [words[0] for words in calls] == ["stop", "start"]
        flags = check_ray_command(calls[1])
        assert "RAY_AUTH_MODE=token ray start" in commands
        assert ("--head" in flags) == (role == "head")
    assert "--dashboard-host=127.0.0.1" in "\n".join(tree["head_start_ray_commands"])
    assert "--port=6379" in "\n".join(tree["head_start_ray_commands"])
    assert "$RAY_HEAD_IP:6379" in "\n".join(tree["worker_start_ray_commands"])


# -------------------------------------------------------------------------------------------------------------- KubeRay


def ray_resource(name):
    [tree] = [one for one in documents(name) if one["apiVersion"].startswith("ray.io")]
    return tree


def cluster_of(tree):
    return tree["spec"] if tree["kind"] == "RayCluster" else tree["spec"]["rayClusterSpec"]


KUBERAY = ("kuberay-cluster.yaml", "kuberay-job.yaml")


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_files_have_no_field_that_kuberay_does_not_know(name):
    tree = ray_resource(name)
    jsonschema.validate(tree, SCHEMAS[tree["kind"]])
    broken = copy.deepcopy(tree)
    cluster_of(broken)["workerGroupSpecs"][0]["maxReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(broken, SCHEMAS[tree["kind"]])


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_clusters_are_of_one_version_guarded_and_growing(name):
    cluster = cluster_of(ray_resource(name))
    assert cluster["rayVersion"] == RAY
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    head = cluster["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    assert head["rayStartParams"]["num-cpus"] == "0"
    for parameter in (*head["rayStartParams"], *cluster["workerGroupSpecs"][0]["rayStartParams"]):
        check_ray_command(["start", f"--{parameter}"])
    ports = {port["name"]: port["containerPort"] for port in head["template"]["spec"]["containers"][0]["ports"]}
    assert ports == {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    claims = {one["metadata"]["name"] for one in documents(KUBERAY[0]) if one["kind"] == "PersistentVolumeClaim"}
    for group in (head, *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert [container["image"] for container in pod["containers"]] == [IMAGE]
        assert pod["securityContext"]["runAsNonRoot"] is True
        volumes = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
        assert set(volumes.values()) <= claims
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
            assert container["resources"]["requests"] == container["resources"]["limits"], "Ray counts the limits"


def test_only_the_clusters_own_pods_reach_its_ports():
    [policy] = [one for one in documents(KUBERAY[0]) if one["kind"] == "NetworkPolicy"]
    own = {"matchLabels": {"ray.io/cluster": ray_resource(KUBERAY[0])["metadata"]["name"]}}
    assert policy["spec"] == {
        "podSelector": own,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": own}]}],
    }


def test_the_kubernetes_job_runs_a_sweep_of_the_image_into_the_mounted_claim():
    job = ray_resource("kuberay-job.yaml")["spec"]
    words = shlex.split(job["entrypoint"])
    assert words[:2] == ["raysoft", "tune"]
    assert words[2].startswith("/opt/raysoft/tune_configs/")
    mounts = cluster_of(ray_resource("kuberay-job.yaml"))["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert words[words.index("--out") + 1].startswith(mounts["volumeMounts"][0]["mountPath"] + "/")
    environment(yaml.safe_load(job["runtimeEnvYAML"]))


# ----------------------------------------------------------------------------------------------------- runtime_env.yaml


def environment(tree):
    from ray.runtime_env import RuntimeEnv

    return RuntimeEnv(**tree, _validate=True)


def test_the_runtime_environment_is_one_and_holds_no_secret():
    tree = yaml.safe_load(text("runtime_env.yaml"))
    made = environment(tree)
    assert set(tree) == {"excludes", "env_vars"}
    assert all(isinstance(item, str) for item in tree["excludes"])
    assert made["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"].isdigit()
    assert not re.search("token|secret|password|api_key", " ".join(tree["env_vars"]), re.IGNORECASE)
    with pytest.raises(TypeError, match="must be of type"):
        environment({"env_vars": {"A": 1}})


# ---------------------------------------------------------------------------------------------------------------- Slurm


@pytest.fixture
def allocation(tmp_path):
    """Slurm's commands as far as the script meets them; `srun` writes down what it was asked to do."""
    made = tmp_path / "bin"
    made.mkdir()
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/activate").write_text("")
    scripts = {
        "scontrol": 'printf "node7\\nnode8\\n"',
        "srun": 'printf "%s\\n" "$@" > "$OUT"; cat "$RAY_AUTH_TOKEN_PATH" > "$OUT.token"; env > "$OUT.env"',
    }
    for name, body in scripts.items():
        (made / name).write_text(f"#!/bin/sh\n{body}\n")
        (made / name).chmod(0o755)
    return tmp_path, {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RAY", "SLURM"))},
        "PATH": f"{made}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "OUT": str(tmp_path / "asked"),
        "RAYSOFT_ENVIRONMENT": str(tmp_path / "venv"),
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
    }


def slurm(environment, *words):
    command = ["bash", str(CLUSTER / "slurm.sh"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("gpus", ["", "4"])
def test_the_slurm_script_starts_ray_on_all_nodes_and_raysoft_on_the_first(allocation, gpus):
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args, symmetric_run

    folder, environment = allocation
    done = slurm({**environment, **({"SLURM_GPUS_ON_NODE": gpus} if gpus else {})}, "run", "soft", "rounds=2")
    assert done.returncode == 0, done.stderr
    asked = (folder / "asked").read_text().splitlines()
    at, end = asked.index("symmetric-run"), asked.index("--")
    assert asked[:at] == ["--nodes=2", "--ntasks-per-node=1", "ray"]
    assert asked[end + 1 :] == ["env", "RAY_ADDRESS=node7:22345", "raysoft", "run", "soft", "rounds=2"]
    ours = symmetric_run.make_context("_", asked[at + 1 : end], resilient_parsing=True).params
    assert (ours["address"], ours["min_nodes"]) == ("node7:22345", 2)
    start = curate_and_validate_ray_start_args(asked[at + 1 : end])
    check_ray_command(["start", *start])
    assert "--num-cpus=16" in start
    assert ("--num-gpus=4" in start) == bool(gpus)
    token = (folder / "asked.token").read_text()
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert not list((folder / ".ray").iterdir()), "the token goes with the job"
    seen = (folder / "asked.env").read_text()
    assert "RAY_AUTH_MODE=token" in seen
    assert f"RAYSOFT_OUTPUTS={folder}/raysoft-outputs" in seen
    assert token not in seen, "environments can be read by others"


def test_the_slurm_script_says_how_it_is_used(allocation):
    done = slurm(allocation[1])
    assert done.returncode == 2
    assert "usage: sbatch cluster/slurm.sh" in done.stderr
    assert "#SBATCH --exclusive" in text("slurm.sh"), "symmetric-run ends every Ray of the user on its nodes"


# -------------------------------------------------------------------------------------------------------- Containerfile

INSTRUCTIONS = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD"}


def instructions():
    lines = [line for line in text("Containerfile").splitlines() if line.strip() and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        yield tuple(line.split(maxsplit=1))


def test_the_container_file_is_made_of_instructions_whose_files_exist():
    made = list(instructions())
    assert {name for name, _ in made} <= INSTRUCTIONS
    assert next(name for name, _ in made if name != "ARG") == "FROM"
    assert ("USER", "ray") in made
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name, rest in made:
        if name == "COPY":
            for source in rest.split()[:-1]:
                assert f"!{source}" in ignored, f"{source} would not reach the builder"
                assert (ROOT / source).exists(), source
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True, timeout=20)


@pytest.mark.parametrize(("variant", "index"), [("cpu", "https://download.pytorch.org/whl/cpu"), ("gpu", None)])
def test_the_variants_differ_in_the_source_of_torch_alone(tmp_path, variant, index):
    [install] = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    (tmp_path / "pip").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "pip").chmod(0o755)

    def run(value):
        return subprocess.run(
            ["sh", "-c", install],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "VARIANT": value},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    words = run(variant).stdout.split()
    assert words[:2] == ["install", "--no-cache-dir"]
    assert words[-3:-1] == ["-c", "constraints.txt"]
    assert words[2:-3] == (["--extra-index-url", index] if index else [])
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.fullmatch(r"\.\[(.*)\]", words[-1])[1].split(",")) <= set(extras)
    assert run("tpu").returncode == 2


def test_the_embedded_models_of_the_image_exist():
    from raysoft.models.embedded import find

    [build] = [rest for name, rest in instructions() if name == "RUN" and "ensure(" in rest]
    names = re.search(r"in \((.*?)\)", build)[1].replace("'", "").split(", ")
    assert len([find(f"embedded/{name}") for name in names]) == 2


# -------------------------------------------------------------------------------------------------------------- README


def code_blocks(name):
    return re.findall(r"```bash\n(.*?)```", text(name), re.DOTALL)


def test_every_ray_command_of_the_readme_exists():
    calls = [words for block in code_blocks("README.md") for words in ray_calls(block)]
    assert len(calls) >= 12
    for words in calls:
        check_ray_command(words)


def test_every_raysoft_command_of_the_readme_exists():
    from typer.main import get_command

    from raysoft.terminal.cli import app

    commands = get_command(app).commands
    seen = set()
    call = re.compile(r"(?:-m raysoft|-- raysoft|slurm\.sh|\braysoft(?= run| tune| resume)) (\w+)([^#]*)")
    for block in code_blocks("README.md"):
        for line in block.replace("\\\n", " ").splitlines():
            for match in call.finditer(line):
                name, rest = match.groups()
                assert name in commands, line
                flags = {word.partition("=")[0] for word in rest.split() if word.startswith("--")}
                assert flags <= options(commands[name]), line
                seen.add(name)
    assert {"run", "resume", "tune"} <= seen


def test_the_readme_names_every_file_and_links_to_its_own_sections():
    readme = text("README.md")
    for path in CLUSTER.iterdir():
        assert path.name == "README.md" or path.name in readme, path.name
    titles = re.findall(r"^#+ (.*)$", readme, re.MULTILINE)
    titles = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([\w-]+)\)", readme)) <= titles
