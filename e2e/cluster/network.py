"""A network namespace per cluster, joined to the machine by a pair of virtual interfaces.

Inside, every cluster uses the same ports, pod addresses and iptables rules as
any other: they never meet. Only the four addresses of the pair are chosen.
"""

import contextlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import cache

#: Longest name of a network interface, in characters. Source: Linux, IFNAMSIZ is 16 with the final zero.
MAX_INTERFACE_NAME_LENGTH = 15
_SUBNETS = "172.30.{}."
#: Comment of our iptables rules, so that they are found again whoever else writes rules here.
_MARK = "draftmark-{}"
_CONF = Path("/proc/sys/net/ipv4/conf")
#: One empty file for each interface of the machine that we made forward, until no cluster needs it.
_FORWARDING = Path("/run/draftmark-forwarding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The namespace of one cluster; `node` is the address inside, `host` the machine's end."""

    name: str
    host: str
    node: str

    @property
    def namespace(self) -> Path:
        return namespace(self.name)


def namespace(name: str) -> Path:
    return Path("/run/netns") / name


def create(name: str, *, egress: bool) -> Network:
    """Make the namespace and its way out to the machine.

    Args:
        egress: Whether pods reach beyond the machine. It needs address
            translation and forwarding on the machine, so it is off unless asked for.
    """
    for module in ("br_netfilter", "overlay"):
        if shutil.which("modprobe"):  # built into some kernels; then there may be no modprobe
            subprocess.run(["modprobe", module], capture_output=True)
    with cache.lock("network"):
        taken = _addresses()
        free = next(n for n in range(1, 255) if not any(address.startswith(_SUBNETS.format(n)) for address in taken))
        subnet = _SUBNETS.format(free)
        network = Network(name=name, host=f"{subnet}1", node=f"{subnet}2")
        _run(f"ip netns add {name}")
        _run(f"ip link add {name} type veth peer name uplink netns {name}")
        _run(f"ip addr add {network.host}/30 dev {name}")
    _run(f"ip link set {name} up")
    for command in (
        "ip link set lo up",
        f"ip addr add {network.node}/30 dev uplink",
        "ip link set uplink up",
        f"ip route add default via {network.host}",
        "sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1",
    ):
        _run(f"nsenter --net={network.namespace} {command}")
    if egress:
        _open_egress(network)
    return network


def remove(name: str) -> None:
    """Remove the namespace, the pair and the rules, as far as they exist."""
    if namespace(name).exists():
        _run(f"ip netns delete {name}")
    # Deleting the namespace destroys the pair, but later; the address is free only when it is gone.
    subprocess.run(["ip", "link", "delete", name], capture_output=True)
    for table in ("nat", "filter"):
        for rule in _rules(table, f"{_MARK.format(name)} "):
            _run(f"iptables -w -t {table} -D {rule}")
    if _FORWARDING.exists() and not _rules("nat", _MARK.format("")):
        for changed in _FORWARDING.iterdir():
            if (_CONF / changed.name).exists():
                (_CONF / changed.name / "forwarding").write_text("0")
        shutil.rmtree(_FORWARDING)


def _open_egress(network: Network) -> None:
    mark = f"-m comment --comment {_MARK.format(network.name)}"
    _run(f"iptables -w -t nat -A POSTROUTING -s {network.node}/32 ! -o {network.name} {mark} -j MASQUERADE")
    _run(f"iptables -w -I FORWARD -i {network.name} {mark} -j ACCEPT")
    _run(f"iptables -w -I FORWARD -o {network.name} {mark} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
    # Only the interfaces that carry this traffic forward, not the whole machine.
    (_CONF / network.name / "forwarding").write_text("1")
    for uplink in {route["dev"] for route in json.loads(_run("ip -j -4 route show default"))}:
        setting = _CONF / uplink / "forwarding"
        if setting.read_text().strip() == "0":
            _FORWARDING.mkdir(exist_ok=True)
            (_FORWARDING / uplink).touch()
            setting.write_text("1")


def _rules(table: str, mark: str) -> list[str]:
    """The rules of ours whose comment begins with `mark`, as arguments of -A and -D."""
    if not shutil.which("iptables"):
        return []
    with contextlib.suppress(subprocess.CalledProcessError):
        lines = _run(f"iptables -w -t {table} -S").splitlines()
        return [line.removeprefix("-A ") for line in lines if f"--comment {mark}" in line]
    return []


def _addresses() -> list[str]:
    return [info["local"] for link in json.loads(_run("ip -j -4 addr")) for info in link.get("addr_info", ())]


def _run(command: str) -> str:
    return subprocess.run(command.split(), check=True, text=True, stdout=subprocess.PIPE).stdout
