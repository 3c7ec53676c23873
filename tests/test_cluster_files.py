"""docker/slurm/ and docker/k8s/: the scripts call what they say, and times fit into one another.

The programs that they call are stand-ins that print their arguments; tests/test_soak_slurm.py has
a real SLURM. The schemas of Kubernetes, 111 MB, are not installed with the rest.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_soak import save
from typer.main import get_command

import prep.cli
import train.cli

DOCKER = Path(__file__).resolve().parent.parent / "docker"
SCRIPTS = sorted(DOCKER.glob("slurm/*.sbatch"))
MANIFESTS = sorted(DOCKER.glob("k8s/*.yaml"))


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """An environment in which programs only print what they are called with; srun calls on."""
    print_it = '#!/bin/bash\necho "$(basename "$0") $*"\n'
    for name in ("prep", "torchrun", "dask", "scancel", "scontrol"):
        (tmp_path / name).write_text(print_it)
    call_on = '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
    (tmp_path / "srun").write_text(call_on)
    for program in tmp_path.iterdir():
        program.chmod(0o755)
    return {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "7"}


def said(line: list[str], environment: dict[str, str]) -> list[str]:
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def jobs() -> dict[str, dict[str, Any]]:
    found = [d for path in MANIFESTS for d in documents(path) if d["kind"] == "Job"]
    return {job["metadata"]["name"]: job["spec"] for job in found}


def pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["template"]["spec"]
    return spec


def containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a pod, in the order in which they start."""
    return [*pod(job).get("initContainers", []), *pod(job)["containers"]]


def options_of(program: Any, command: str) -> set[str]:
    known = get_command(program.app).commands[command]  # type: ignore[attr-defined]
    return {option for parameter in known.params for option in parameter.opts}


def assert_known(line: str) -> None:
    """Every option of a line that calls prep or train is one of that command."""
    words = line.split()
    program, command = (prep.cli, words[1]) if words[0] == "prep" else (train.cli, "run")
    after = words if words[0] == "prep" else words[words.index("train.cli") :]
    given = {word.partition("=")[0] for word in after if word.startswith("-")}
    assert given <= options_of(program, command), line


# --------------------------------------------------------------------------- SLURM


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True)


def test_a_task_of_an_array_does_its_part_and_the_same_script_finishes(
    stand_ins: dict[str, str],
) -> None:
    script = ["bash", str(DOCKER / "slurm" / "prep-array.sbatch"), "a b", "OUT", "--quality=90"]
    task = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MAX": "3", "SLURM_CPUS_PER_TASK": "8"}
    (line,) = said(script, stand_ins | task)
    assert line == "prep resize a b OUT --quality=90 --jobs 8 --part 2/3"
    assert_known(line)
    assert said(script, stand_ins) == ["prep resize a b OUT --quality=90 --jobs 1"]


def test_the_dask_script_starts_all_three_at_one_address(
    stand_ins: dict[str, str], tmp_path: Path
) -> None:
    with (tmp_path / "prep").open("a") as program:
        program.write("sleep 1\n")  # its end ends the others
    lines = said(["bash", str(DOCKER / "slurm" / "prep-dask.sbatch"), "SRC", "OUT"], stand_ins)
    address = re.escape(f"tcp://{os.uname().nodename}:10007")
    scheduler, worker, prep_line = sorted(lines, key=lambda line: line.split()[:2])
    assert re.match(r"dask scheduler --port 10007 ", scheduler)
    assert re.match(rf"dask worker {address} --nworkers 1 --nthreads 1 ", worker)
    assert re.fullmatch(rf"prep resize SRC OUT --dask {address}", prep_line)
    assert_known(prep_line)


def test_training_starts_a_torchrun_a_node_that_meet_at_the_first(
    stand_ins: dict[str, str],
) -> None:
    script = ["bash", str(DOCKER / "slurm" / "train.sbatch"), "--beton", "a.beton"]
    (line,) = said(script, stand_ins | {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8"})
    assert line == (
        "torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d "
        f"--rdzv-endpoint={os.uname().nodename}:10007 --rdzv-id=7 "
        "-m train.cli run --device cuda --beton a.beton"
    )
    (line,) = said(script, stand_ins | {"SLURM_JOB_NUM_NODES": "1"})
    assert line.endswith("-m train.cli run --beton a.beton")  # no GPUs were asked for


@pytest.mark.parametrize(
    ("job", "again"), [("PreemptTime=2026-11-22T09:00:00", True), ("PreemptTime=None", False)]
)
@pytest.mark.parametrize("script", ["prep-dask", "train"])
def test_what_fails_goes_back_into_the_queue_if_it_was_preempted(
    stand_ins: dict[str, str], tmp_path: Path, script: str, job: str, again: bool
) -> None:
    (tmp_path / "scontrol").write_text(
        f'#!/bin/bash\necho "$*" >>{tmp_path}/asked\necho "JobId=$3 {job} SuspendTime=None"\n'
    )
    for name in ("prep", "torchrun"):
        (tmp_path / name).write_text("#!/bin/bash\nsleep 0.2\nexit 9\n")
    environment = stand_ins | {"SLURM_JOB_NUM_NODES": "1"}
    line = ["bash", DOCKER / "slurm" / f"{script}.sbatch", "a", "b"]
    ended = subprocess.run(line, env=environment, capture_output=True, check=False)
    assert ended.returncode == 9, ended.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["show job 7", *(["requeue 7"] if again else [])]


def test_torchrun_has_less_time_for_a_checkpoint_than_the_job() -> None:
    text = (DOCKER / "slurm" / "train.sbatch").read_text(encoding="utf-8")
    (ahead,) = re.findall(r"#SBATCH --signal=B:USR1@(\d+)", text)
    (patience,) = re.findall(r"SHUTDOWN_TIMEOUT:-(\d+)", text)
    assert int(patience) < int(ahead)


# --------------------------------------------------------------------------- Kubernetes


@pytest.mark.parametrize("index", [0, 15])
def test_a_pod_does_the_part_of_its_index(stand_ins: dict[str, str], index: int) -> None:
    job = jobs()["alexnet-prep"]
    (container,) = containers(job)
    assert container["command"] == ["sh", "-c"]
    environment = stand_ins | {"JOB_COMPLETION_INDEX": str(index)}
    (line,) = said(["sh", "-c", *container["args"]], environment)
    assert line.endswith(f" --part {index + 1}/{job['completions']}")
    assert_known(line)


def test_the_last_job_finishes_the_same_set_and_trains_nothing_else(
    stand_ins: dict[str, str],
) -> None:
    (first,) = containers(jobs()["alexnet-prep"])
    last = containers(jobs()["alexnet-prep-finish"])
    lines = [line for each in last for line in said(each["command"], stand_ins)]
    assert [line.split()[1] for line in lines] == ["resize", "stats", "write-beton", "write-beton"]
    part = said(["sh", "-c", *first["args"]], stand_ins | {"JOB_COMPLETION_INDEX": "0"})[0]
    assert part.startswith(lines[0])
    for line in lines:
        assert_known(line)


def test_training_in_pods_meets_at_pod_0_and_has_time_for_a_checkpoint(
    stand_ins: dict[str, str],
) -> None:
    service = next(d for d in documents(DOCKER / "k8s/train.yaml") if d["kind"] == "Service")
    job = jobs()["alexnet-train"]
    (container,) = containers(job)
    assert container["command"] == ["sh", "-c"]
    (script,) = container["args"]
    arguments = dict(word.lstrip("-").partition("=")[::2] for word in script.split())
    host = f"alexnet-train-0.{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert arguments["rdzv-endpoint"] == host
    assert pod(job)["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": "alexnet-train"}
    assert arguments["nnodes"] == f"1:{job['completions']}" == f"1:{job['parallelism']}"
    assert arguments["nproc-per-node"] == container["resources"]["limits"]["nvidia.com/gpu"]
    patience = {e["name"]: e["value"] for e in container["env"]}["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]
    assert int(patience) < pod(job)["terminationGracePeriodSeconds"]
    for index, is_host in ((0, 1), (1, 0)):
        (line,) = said(["sh", "-c", script], stand_ins | {"JOB_COMPLETION_INDEX": str(index)})
        assert f" --rdzv-conf=is_host={is_host} " in line
        assert_known(line)


@pytest.mark.parametrize("name", ["alexnet-prep", "alexnet-prep-finish", "alexnet-train"])
def test_every_pod_has_limits_and_the_volume_and_the_images_user(name: str) -> None:
    spec = pod(jobs()[name])
    (claim,) = [d for path in MANIFESTS for d in documents(path) if "Claim" in d["kind"]]
    for container in containers(jobs()[name]):
        assert set(container["resources"]) == {"requests", "limits"}
        assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
    assert spec["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert spec["restartPolicy"] == "Never"  # podFailurePolicy allows no other
    assert "--uid 1000" in (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert spec["securityContext"]["runAsUser"] == 1000


@pytest.mark.parametrize("name", ["alexnet-prep", "alexnet-prep-finish", "alexnet-train"])
def test_a_pod_s_end_reaches_the_program(name: str) -> None:
    """SIGTERM goes to process 1; a shell there, of which it is process 1, ignores it."""
    for container in containers(jobs()[name]):
        shell = container["command"] == ["sh", "-c"]
        assert (container["args"][0] if shell else container["command"][0]).split()[0] in (
            ["exec"] if shell else ["prep"]
        )


@pytest.mark.soak
def test_the_schemas_of_kubernetes_allow_them() -> None:
    validator = pytest.importorskip(
        "kubernetes_validate", reason="the schemas are missing: pip install kubernetes-validate"
    )
    versions, kinds = ["1.31", "1.37"], {}
    for path in MANIFESTS:
        kinds[path.name] = [document["kind"] for document in documents(path)]
        for document, version in itertools.product(documents(path), versions):
            assert validator.validate(document, version, strict=True) == version
            with pytest.raises(validator.ValidationError):
                validator.validate(document | {"spec": {"no such": "field"}}, version, strict=True)
    save("kubernetes", {"valid by the schemas of Kubernetes": versions, "files": kinds})
