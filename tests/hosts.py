"""Hosts with addresses of their own on one machine: network namespaces at a bridge in another."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

RETRIES = 4  # of TCP, before a host that does not answer is given up: seconds, not a quarter hour


@dataclasses.dataclass(frozen=True)
class Host:
    """One of them."""

    namespace: str
    address: str
    switch: str  # the namespace of the bridge
    port: str  # the end of its cable at the bridge

    def start(
        self, *line: str, log: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *line],
                env={**environment, "GLOO_SOCKET_IFNAME": "eth0"},
                stdout=out,
                stderr=out,
            )

    def cut_off(self) -> None:
        """Pull its cable."""
        _ip("-n", self.switch, "link", "set", self.port, "down")


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """That many hosts, 10.77.0.1 and so on, which see nothing but one another."""
    name = f"prep{os.getpid()}"
    switch, made = f"{name}-switch", [f"{name}-{number}" for number in range(1, count + 1)]
    with contextlib.ExitStack() as ending:
        for namespace in (switch, *made):
            _ip("netns", "add", namespace)
            ending.callback(_ip, "netns", "del", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        found = []
        for number, namespace in enumerate(made, 1):
            host = Host(namespace, f"10.77.0.{number}", switch, f"port{number}")
            peer = ("peer", "name", "eth0", "netns", namespace)
            _ip("-n", switch, "link", "add", host.port, "type", "veth", *peer)
            _ip("-n", switch, "link", "set", host.port, "master", "bridge", "up")
            _ip("-n", namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", namespace, "link", "set", "eth0", "up")
            setting = ("sysctl", "-qw", f"net.ipv4.tcp_retries2={RETRIES}")
            _ip("netns", "exec", namespace, *setting)
            found.append(host)
        yield found


def why_not() -> str:
    """Why there can be no such hosts here; nothing when there can."""
    if os.geteuid() != 0:
        return "network namespaces have to be made by root"
    if shutil.which("ip") is None:
        return "the program ip is missing: Debian's iproute2"
    try:
        with hosts(1):
            return ""
    except subprocess.CalledProcessError as error:
        return f"network namespaces cannot be made here: {error.stderr.strip()}"


def _ip(*line: str) -> None:
    subprocess.run(["ip", *line], check=True, capture_output=True, text=True)
