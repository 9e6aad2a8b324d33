"""Many services in a real cluster without engines: `python -m bench.scale_kwok [--services 200]`.

etcd, kube-apiserver, kube-controller-manager and kube-scheduler are real; KWOK plays the kubelets, so that pods are ready
as soon as they have a node. The operator is the real process, `draftmark run`, with the service account and the roles of
the chart. Its writes are counted in the API server's audit log. `bench.scale_kwok_server` answers for the gateways, each
with what its ConfigMap says at that moment. The phases are those of `bench.scale`.

What differs from a cluster that serves:

- The controllers are those that a Deployment, its deletion and a bound claim need. None makes EndpointSlices or watches
  nodes: there are no leases of nodes.
- The controller manager and the scheduler may ask the API server as often as they can; their own limits, 20 and 50
  requests a second, would be what is measured. etcd does not wait for the disk.
- Everything shares the machine's cores. Each phase ends with the processor time of each program; `others` is what the
  rest of the machine used, which should be near 0.

All of it runs in a network and a process namespace of its own, which end with this process: pod addresses lead to the
namespace itself. It needs Linux, Go to build the programs (once), and the commands `unshare` and `ip`.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from bench.scale import EDITS, Running, Server, measure
from bench.scale_kwok_server import NAMESPACE
from draftmark.api import names
from draftmark.cluster.kinds import lease_rules, rbac_rules
from draftmark.package_data import data_folder
from e2e.cluster import binaries, cache, processes
from e2e.cluster.cluster import Cluster

_HERE = Path(__file__).parent
_INSIDE = "DRAFTMARK_BENCH_INSIDE"
#: Addresses of pods: as many as KWOK can hand out, and none that the API server refuses.
_POD_NETWORK = "10.128.0.0/9"
_OPERATOR_NAMESPACE = "draftmark-system"
_OPERATOR = "draftmark"
_GPUS_PER_NODE = 8
#: Seconds between two edits. One rollout takes all these programs together more than a second on one core.
EDIT_EVERY_S = 1.0
_CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "garbage-collector-controller",
    "persistentvolume-binder-controller",
    "serviceaccount-controller",
    "namespace-controller",
)
_OFTEN = ("--kube-api-qps=5000", "--kube-api-burst=10000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=200)
    count = parser.parse_args().services
    if not os.environ.get(_INSIDE):
        for module in (binaries.KUBERNETES, binaries.KUBECTL, binaries.KWOK):
            module.build()
        _enter_namespaces()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    for command in ("ip link set lo up", f"ip route add local {_POD_NETWORK} dev lo"):
        subprocess.run(command.split(), check=True)
    # Named after the checkout, so that a run finds what a killed one has left; one at a time.
    name = f"kwok{names.short_hash(str(_HERE))[:6]}"
    with cache.lock(f"bench-{name}"), _cluster(name).running() as cluster:
        user = _prepare(cluster, nodes=-(-2 * (count + min(EDITS, count)) // _GPUS_PER_NODE) + 1)
        server = Surroundings(cluster)
        try:
            shares = Shares(cluster, server)
            measure(server, count, _reached(cluster), user, edit_every_s=EDIT_EVERY_S, after_phase=shares.show)
        finally:
            server.stop()


class Surroundings(Server):
    """`bench.scale_kwok_server`, as long as the cluster is whole."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__("bench.scale_kwok_server", str(cluster.kubeconfig), str(_audit_log(cluster)))
        self._cluster = cluster

    def __call__(self, do: str = "tell", **more: Any) -> dict[str, Any]:
        for program in sorted(
            {*self._cluster.programs, "kube-scheduler", "kwok"} - set(self._cluster.processes().values())
        ):
            log = (self._cluster.logs / f"{program}.log").read_text().splitlines()
            raise RuntimeError("\n".join([f"{program} has ended; its last lines:", *log[-20:]]))
        return super().__call__(do, **more)


def _enter_namespaces() -> None:
    """Become the same program in new namespaces. A process namespace ends with its first process, however that ends."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        sys.exit("error: the benchmark needs the commands `unshare` (util-linux) and `ip` (iproute2), and Linux")
    options = ["--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        options += ["--user", "--map-root-user"]
    os.execvpe(
        "unshare",
        ["unshare", *options, sys.executable, "-m", "bench.scale_kwok", *sys.argv[1:]],
        {**os.environ, _INSIDE: "yes"},
    )


def _cluster(name: str) -> Cluster:
    log = _audit_log(Cluster(name))
    more = {
        "kube-apiserver": (
            f"--audit-policy-file={_HERE / 'scale_kwok_audit.yaml'}",
            f"--audit-log-path={log}",
            "--audit-log-maxsize=100000",  # MB; by default it begins a new file after 100
            # It taints new nodes, and no controller that runs here would take the taint away.
            "--disable-admission-plugins=TaintNodesByCondition",
        ),
        "kube-controller-manager": (f"--controllers={','.join(_CONTROLLERS)}", *_OFTEN),
    }
    return Cluster(name, control_plane_only=True, more_arguments=more)


def _audit_log(cluster: Cluster) -> Path:
    return cluster.logs / "audit.json"


def _reached(cluster: Cluster) -> dict[str, str]:
    config = json.loads(cluster.kubeconfig.read_text())
    return dict(config["clusters"][0]["cluster"])


def _prepare(cluster: Cluster, *, nodes: int) -> dict[str, str]:
    """Start what the control plane lacks, and make what an administrator would have made.

    Returns:
        The operator's user, as a kubeconfig has it.
    """
    scheduler = binaries.KUBERNETES.build() / "kube-scheduler"
    kwok = binaries.KWOK.build() / "kwok"
    for program, arguments in (
        (scheduler, ["--leader-elect=false", "--secure-port=0", *_OFTEN]),
        (kwok, [f"--config={_HERE / 'scale_kwok.yaml'}", f"--cidr={_POD_NETWORK}"]),
    ):
        command = [str(program), f"--kubeconfig={cluster.kubeconfig}", *arguments]
        processes.start(command, log=cluster.logs / f"{program.name}.log")
    crds = [yaml.safe_load(file.read_text("utf-8")) for file in data_folder("crds").iterdir()]
    _apply(cluster, [*crds, *_operators_rights(), *_volume(), *(_node(number) for number in range(nodes))])
    for crd in crds:
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{crd['metadata']['name']}", "--timeout=60s")
    cluster.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s")
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Bound", "pvc/models", "--timeout=60s")
    token = cluster.kubectl("create", "token", _OPERATOR, f"--namespace={_OPERATOR_NAMESPACE}", "--duration=24h")
    return {"token": token.strip()}


def _apply(cluster: Cluster, objects: Iterable[dict[str, Any]]) -> None:
    body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    cluster.kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(body))


def _operators_rights() -> list[dict[str, Any]]:
    """What the chart makes for it."""
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    subject = {"kind": "ServiceAccount", "name": _OPERATOR, "namespace": _OPERATOR_NAMESPACE}
    everywhere, here = {"name": _OPERATOR}, {"name": _OPERATOR, "namespace": _OPERATOR_NAMESPACE}

    def bound(role: str) -> dict[str, Any]:
        return {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": _OPERATOR},
            "subjects": [subject],
        }

    router = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _OPERATOR_NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here},
        {**rbac, "kind": "ClusterRole", "metadata": everywhere, "rules": rbac_rules()},
        {**rbac, "kind": "ClusterRoleBinding", "metadata": everywhere, **bound("ClusterRole")},
        {**rbac, "kind": "Role", "metadata": here, "rules": lease_rules()},
        {**rbac, "kind": "RoleBinding", "metadata": here, **bound("Role")},
        {**rbac, "kind": "ClusterRole", "metadata": {"name": "draftmark-router"}, "rules": router},
    ]


def _volume() -> list[dict[str, Any]]:
    """The claim that the services' models lie in, and its volume."""
    size = {"storage": "1Ti"}
    shared = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    claim = {"name": "models", "namespace": NAMESPACE}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "models"},
            "spec": {**shared, "capacity": size, "claimRef": claim, "hostPath": {"path": "/models"}},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": claim,
            "spec": {**shared, "volumeName": "models", "resources": {"requests": size}},
        },
    ]


def _node(number: int) -> dict[str, Any]:
    """A node with GPUs, labelled as NVIDIA's feature discovery does."""
    size = {
        "cpu": "96",
        "memory": "768Gi",
        "ephemeral-storage": "4Ti",
        "pods": "110",
        "nvidia.com/gpu": str(_GPUS_PER_NODE),
    }
    labels = {
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "nvidia.com/gpu.product": "NVIDIA-L4",
        "nvidia.com/gpu.memory": "23034",
        "nvidia.com/gpu.count": str(_GPUS_PER_NODE),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"node-{number:04d}", "labels": labels},
        "status": {"capacity": size, "allocatable": size},
    }


class Shares:
    """Processor time of each program, phase by phase."""

    def __init__(self, cluster: Cluster, server: Server) -> None:
        self._cluster = cluster
        self._server = server
        self._before = self._look({})
        self._since = time.monotonic()

    def show(self, running: Running) -> None:
        now = self._look({"operator": running.process.pid})
        spent: defaultdict[str, float] = defaultdict(float)
        for (name, pid), seconds in now.items():
            spent[name] += seconds - self._before.get((name, pid), 0.0)
        spent["others"] -= sum(seconds for name, seconds in spent.items() if name != "others")
        had = (time.monotonic() - self._since) * (os.cpu_count() or 1)
        shown = ", ".join(
            f"{name} {seconds:.1f} ({seconds / had:.0%})"
            for name, seconds in sorted(spent.items(), key=lambda entry: -entry[1])
        )
        print(f"  CPU seconds of {had:.0f} that passed on all cores: {shown}", flush=True)
        print(f"  peak MiB: {self._peaks()}", flush=True)
        self._before, self._since = now, time.monotonic()

    def _look(self, more: dict[str, int]) -> dict[tuple[str, int], float]:
        """Processor time so far, by name and process: the operator is another one after a restart."""
        ticks = os.sysconf("SC_CLK_TCK")
        found = {("others", 0): sum(_busy_ticks()) / ticks}
        for name, pid in (self._pids() | more).items():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[name, pid] = (int(fields[11]) + int(fields[12])) / ticks
        return found

    def _pids(self) -> dict[str, int]:
        daemons = {program: pid for pid, program in self._cluster.processes().items()}
        return daemons | {"stand-in": self._server.pid}

    def _peaks(self) -> str:
        peaks = {}
        for name, pid in self._pids().items():
            [peak] = re.findall(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            peaks[name] = int(peak) / 1024
        return ", ".join(f"{name} {peak:.0f}" for name, peak in sorted(peaks.items()))


def _busy_ticks() -> list[int]:
    """Of the whole machine: user, nice, system, hardware and software interrupts, as /proc/stat counts them."""
    user, nice, system, _, _, irq, softirq, *_ = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    return [int(ticks) for ticks in (user, nice, system, irq, softirq)]


if __name__ == "__main__":
    main()
