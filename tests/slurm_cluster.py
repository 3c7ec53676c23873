"""A SLURM of one node on loopback: munged, slurmctld, slurmd, with files of their own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
NODE = "node1"
CPUS = 4  # that SLURM believes in

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=5
ReturnToService=2
KillWait=60
OverTimeLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldTimeout=30
SlurmdTimeout=60
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000
PartitionName=all Nodes={node} Default=YES GraceTime=60
PartitionName=urgent Nodes={node} PriorityTier=2
"""


class Slurm:
    """The cluster's commands."""

    def __init__(self, configuration: Path, environment: Mapping[str, str]) -> None:
        self._environment = {**environment, "SLURM_CONF": str(configuration)}

    def command(self, *line: str, check: bool = True) -> str:
        done = subprocess.run(
            line, env=self._environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert not check or done.returncode == 0, f"{line}\n{done.stderr}"
        return done.stdout.strip()

    def submit(self, *line: str) -> str:
        """sbatch; returns the job's id."""
        return self.command("sbatch", "--parsable", *line)

    def preempt(self) -> str:
        """Submit a job for all of the node, with precedence over those of the other partition."""
        return self.submit(
            "--partition=urgent", f"--ntasks={CPUS}", "--output=/dev/null", "--wrap=true"
        )

    def about(self, job: str) -> dict[str, str]:
        """What `scontrol show job` tells; of a job array, of its last task."""
        text = self.command("scontrol", "--oneliner", "show", "job", job)
        return dict(word.partition("=")[::2] for word in text.splitlines()[-1].split())

    def states(self, job: str) -> set[str]:
        text = self.command("scontrol", "--oneliner", "show", "job", job)
        return {word.partition("=")[2] for word in text.split() if word.startswith("JobState=")}

    def begin_again(self, job: str) -> None:
        """Start a requeued job now: SLURM would wait for two minutes."""
        until = time.monotonic() + 120
        while self.states(job) != {"PENDING"}:
            assert time.monotonic() < until, self.about(job)
            time.sleep(0.1)
        time.sleep(2)  # in the second of its requeue its new credential would be taken for the old
        self.command("scontrol", "update", f"jobid={job}", "StartTime=now")

    def wait(self, job: str, seconds: float = 300) -> set[str]:
        """Wait for the end of a job, all of an array's tasks; returns their states."""
        until = time.monotonic() + seconds
        while (states := self.states(job)) & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}:
            assert time.monotonic() < until, f"job {job} is {states} after {seconds} s"
            time.sleep(0.5)
        return states


@contextlib.contextmanager
def slurm(folder: Path, environment: Mapping[str, str]) -> Iterator[Slurm]:
    """Start a cluster whose files are in `folder`; its daemons end with the block."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=socket.gethostname(), ports=_free_ports(2), folder=folder, node=NODE, cpus=CPUS
        )
    )
    here = {**os.environ, "SLURM_CONF": str(configuration)}
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        daemons.append(_munged(folder))
        for name in ("slurmctld", "slurmd"):
            line = [_program(name), "-D", *(["-N", NODE] if name == "slurmd" else [])]
            with (folder / f"{name}.out").open("wb") as out:
                daemons.append(subprocess.Popen(line, env=here, stdout=out, stderr=out))
        cluster = Slurm(configuration, environment)
        _wait_until_idle(cluster, folder)
        yield cluster
        cluster.command("scancel", "--user=root", check=False)
        time.sleep(2)
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if _program(name) is None]


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")  # type: ignore[return-value]


def _munged(folder: Path) -> subprocess.Popen[bytes]:
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    names = {"key-file": key} | {
        f"{kind}{'' if kind == 'socket' else '-file'}": folder / f"munge.{kind}"
        for kind in ("socket", "log", "pid", "seed")
    }
    line = [_program("munged"), "--foreground", "--force"]
    line += [f"--{name}={path}" for name, path in names.items()]
    with (folder / "munged.out").open("wb") as out:
        daemon = subprocess.Popen(line, stdout=out, stderr=out)
    until = time.monotonic() + 20
    while not (folder / "munge.socket").exists():
        assert daemon.poll() is None, (folder / "munged.out").read_text()
        assert time.monotonic() < until
        time.sleep(0.1)
    return daemon


def _wait_until_idle(cluster: Slurm, folder: Path) -> None:
    until = time.monotonic() + 60
    while "State=IDLE" not in cluster.command("scontrol", "show", "node", NODE, check=False):
        logs = "".join(path.read_text() for path in folder.glob("slurm*.log"))
        assert time.monotonic() < until, logs
        time.sleep(0.5)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [int(free.getsockname()[1]) for free in sockets]
