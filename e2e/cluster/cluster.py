"""A named Kubernetes cluster on this machine: one real node, or the control plane alone.

Everything of a cluster lies in two folders (state, and sockets under /run,
whose paths must be short), one network namespace and one cgroup, all named
after it. So what belongs to it is found by name, and removing it does not
depend on how the run that made it ended.
"""

import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import string
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from e2e.cluster import binaries, cache, cgroups, images, network, packages, processes
from e2e.cluster.images import Image
from e2e.cluster.progress import say, step
from e2e.ports import free_ports

NODE = "node-0"
POD_NETWORK = "10.244.0.0/24"
SERVICE_NETWORK = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
_HERE = Path(__file__).parent
_PREFIX = "dm-"
_SOCKETS = Path("/run/draftmark")
#: Every kubelet listens here, whatever its root folder is; the last one started wins.
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins/kubelet.sock")
#: Folders that containerd and the kubelet make at fixed places; removed when they are empty.
_SHARED_FOLDERS = tuple(
    Path(folder)
    for folder in (
        "/var/lib/cni/results",
        "/var/lib/cni",
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet",
        "/var/log/containers",
    )
)
#: Bytes of an image that takes minutes to load.
_LARGE = 10**9
#: Set by the kubelet for the whole machine; a test cluster must not change how the machine treats a kernel fault.
_KERNEL_SETTINGS = tuple(
    Path("/proc/sys") / name
    for name in (
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "kernel/panic",
        "kernel/panic_on_oops",
        "kernel/keys/root_maxkeys",
        "kernel/keys/root_maxbytes",
    )
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster; `up` and `down` may be called in any state that a killed run left.

    Attributes:
        control_plane_only: etcd, API server and controller manager on free
            loopback ports. Pods stay Pending. Needs no root.
        egress: Whether pods reach, and resolve, names beyond the machine.
        more_arguments: Arguments to add, by program. Of two that set the same flag, the added one counts.
    """

    name: str
    _: KW_ONLY
    control_plane_only: bool = False
    egress: bool = False
    more_arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        longest = network.MAX_INTERFACE_NAME_LENGTH - len(_PREFIX)
        if not re.fullmatch(rf"[a-z][a-z0-9-]{{0,{longest - 1}}}", self.name):
            raise ValueError(
                f"cluster name {self.name!r}: use 1 to {longest} small letters, digits and '-', "
                f"a letter first (it becomes the name of a network interface)"
            )

    @property
    def state(self) -> Path:
        return cache.folder() / "clusters" / self.name

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def network_namespace(self) -> Path:
        """Where the node and its pods are; only there are the pods' addresses reached."""
        return network.namespace(self._id)

    @property
    def programs(self) -> tuple[str, ...]:
        """What runs while the cluster does."""
        control_plane = ("etcd", "kube-apiserver", "kube-controller-manager")
        return control_plane if self.control_plane_only else (*control_plane, "kube-scheduler", *_NODE_PROGRAMS)

    def up(self) -> None:
        """Bring the cluster up, or do nothing when it is."""
        with cache.lock(f"cluster-{self.name}"):
            if self.is_healthy():
                say(f"  cluster {self.name} is up already: KUBECONFIG={self.kubeconfig}")
                return
            self._require()
            self._remove("removing what an earlier run left")
            self.state.mkdir(parents=True)
            self._start()
            # Last: without it the cluster counts as half made, and the next `up` starts again.
            self._identity_file.write_text(self._identity)
            say(f"  cluster {self.name} is up: KUBECONFIG={self.kubeconfig}")

    def down(self) -> None:
        """Remove everything that `up` started, and nothing else."""
        with cache.lock(f"cluster-{self.name}"):
            self._remove(f"removing cluster {self.name}")

    @contextlib.contextmanager
    def running(self) -> Iterator["Cluster"]:
        """Have the cluster up within a `with` block."""
        try:
            self.up()
            yield self
        finally:
            self.down()

    def is_healthy(self) -> bool:
        """Whether it is up, complete, and what this checkout would start."""
        if not self._identity_file.exists() or self._identity_file.read_text() != self._identity:
            return False
        if set(self.programs) - set(self.processes().values()):
            return False
        return self._api_is_ready() and (self.control_plane_only or self._node_is_ready())

    def status(self) -> str:
        """Describe the cluster in a few lines."""
        found = self.processes()
        lines = [f"cluster {self.name}: {'healthy' if self.is_healthy() else 'not healthy' if found else 'not there'}"]
        if found:
            lines.append(f"KUBECONFIG={self.kubeconfig}")
            lines.append(f"logs: {self.logs}")
            lines += [f"{program} {pid}" for pid, program in sorted(found.items()) if program in self.programs]
        return "\n".join(lines)

    def load(self, loaded: Sequence[Image]) -> None:
        """Put images where the kubelet finds them, unless they are there."""
        present = self._ctr("images", "list", "--quiet").split()
        for image in loaded:
            if image.reference not in present:
                with step(f"loading {image.reference}", slow=image.archive.stat().st_size > _LARGE):
                    self._ctr("images", "import", str(image.archive))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl against this cluster and return what it prints.

        Raises:
            RuntimeError: It failed; the message holds what it said.
        """
        done = subprocess.run(
            [str(binaries.KUBECTL.build() / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            text=True,
            capture_output=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    # Making it

    def _start(self) -> None:
        if self.control_plane_only:
            self._start_control_plane(_Endpoints.on_free_ports(), netns=None)
            return
        # Built before anything runs, so that a failed build leaves nothing behind.
        system_images = [images.pause(), images.coredns()]
        self._sockets.mkdir(parents=True)
        with step("network namespace and cgroup"):
            net = network.create(self._id, egress=self.egress)
            cgroups.create(self._id)
        self._start_containerd(net, pause=system_images[0].reference)
        self._start_control_plane(_Endpoints.in_namespace(net.node), netns=net.namespace)
        self.load(system_images)
        with step("kubelet, kube-proxy, CoreDNS"), self._kernel_settings_kept():
            manifest = string.Template((_HERE / "coredns.yaml").read_text())
            forward = "forward . /etc/resolv.conf" if self.egress else ""
            self.kubectl(
                "apply", "-f", "-", stdin=manifest.substitute(image=system_images[1].reference, forward=forward)
            )
            self._start_node(net)
            self._wait(self._dns_is_ready, timeout_s=90, what="CoreDNS is not ready", log="kubelet")

    def _start_control_plane(self, at: "_Endpoints", netns: Path | None) -> None:
        pki = self.state / "pki"
        pki.mkdir()
        key, certificate, token = pki / "service-account.key", pki / "apiserver.crt", secrets.token_hex(16)
        subprocess.run(
            ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)],
            check=True,
            capture_output=True,
        )
        (pki / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        (pki / "tokens.csv").chmod(0o600)
        with step("etcd and kube-apiserver"):
            self._daemon(
                "etcd",
                f"--data-dir={self.state}/etcd",
                "--unsafe-no-fsync",
                "--log-level=warn",
                f"--listen-client-urls={at.etcd}",
                f"--advertise-client-urls={at.etcd}",
                f"--listen-peer-urls={at.etcd_peers}",
                netns=netns,
            )
            self._daemon(
                "kube-apiserver",
                f"--etcd-servers={at.etcd}",
                f"--bind-address={'127.0.0.1' if self.control_plane_only else '0.0.0.0'}",
                f"--advertise-address={at.api_address}",
                f"--secure-port={at.api_port}",
                # Nobody reaches a control plane without a node by its Service, and loopback is refused as endpoint.
                *(["--endpoint-reconciler-type=none"] if self.control_plane_only else []),
                f"--cert-dir={pki}",
                "--authorization-mode=Node,RBAC",
                f"--token-auth-file={pki}/tokens.csv",
                f"--service-cluster-ip-range={SERVICE_NETWORK}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={key}",
                f"--service-account-signing-key-file={key}",
                "--kubelet-preferred-address-types=InternalIP",
                "--allow-privileged=true",
                netns=netns,
            )
            self._wait(
                lambda: is_whole(certificate),
                timeout_s=30,
                what="kube-apiserver wrote no certificate",
                log="kube-apiserver",
            )
            self._write_kubeconfig(at.api, certificate, token)
            self._wait(self._api_is_ready, timeout_s=60, what="kube-apiserver is not ready", log="kube-apiserver")
        with step(
            "kube-controller-manager" if self.control_plane_only else "kube-controller-manager and kube-scheduler"
        ):
            self._daemon(
                "kube-controller-manager",
                f"--kubeconfig={self.kubeconfig}",
                "--leader-elect=false",
                f"--service-account-private-key-file={key}",
                f"--root-ca-file={certificate}",
                "--use-service-account-credentials=true",
                # The default of 20 requests a second makes 40 controllers wait 4 s for their tokens.
                "--kube-api-qps=500",
                "--kube-api-burst=1000",
                *(["--secure-port=0"] if self.control_plane_only else []),
                netns=netns,
            )
            if not self.control_plane_only:
                self._daemon("kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", netns=netns)
            # Pods need it, and until it is there the API server refuses them.
            self._wait(
                self._has_service_account, timeout_s=30, what="no service account", log="kube-controller-manager"
            )

    def _start_containerd(self, net: network.Network, *, pause: str) -> None:
        config = string.Template((_HERE / "containerd.toml").read_text())
        (self.state / "containerd.toml").write_text(
            config.substitute(state=self.state, sockets=self._sockets, pause=pause, cni_programs="/usr/lib/cni")
        )
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,  # a pod may reach itself through its Service
            "ipam": {
                "type": "host-local",
                "dataDir": f"{self.state}/ipam",  # by default all networks of one name share their leases
                "ranges": [[{"subnet": POD_NETWORK}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        (self.state / "cni").mkdir()
        (self.state / "cni" / "10-bridge.conflist").write_text(
            json.dumps(
                {
                    "cniVersion": "1.0.0",
                    "name": self._id,
                    "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
                }
            )
        )
        # The daemon finds its shim on PATH, in its own folder.
        path = f"{binaries.CONTAINERD.build()}:{os.environ['PATH']}"
        self._daemon("containerd", f"--config={self.state}/containerd.toml", netns=net.namespace, env={"PATH": path})
        self._wait(self._containerd.exists, timeout_s=30, what="containerd does not listen", log="containerd")

    def _start_node(self, net: network.Network) -> None:
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._id}",
            "failCgroupV1": False,  # since 1.35 the kubelet refuses version 1 unless told otherwise
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{self._containerd}",
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            # The machine's disk and memory are the user's: only stop when there is really nothing left.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            # Engines that are meant to crash do so often enough to be told as crashing, and that takes less time.
            "crashLoopBackOff": {"maxContainerRestartPeriod": "4s"},
            "resolvConf": str(_resolv_conf()),
            "podLogsDir": f"{self.state}/pod-logs",
            "volumePluginDir": f"{self.state}/volume-plugins",
        }
        (self.state / "kubelet.json").write_text(json.dumps(kubelet))
        self._daemon(
            "kubelet",
            f"--config={self.state}/kubelet.json",
            f"--kubeconfig={self.kubeconfig}",
            f"--root-dir={self.state}/kubelet",
            f"--cert-dir={self.state}/kubelet/pki",
            f"--hostname-override={NODE}",
            f"--node-ip={net.node}",
            netns=net.namespace,
        )
        self._daemon(
            "kube-proxy",
            f"--kubeconfig={self.kubeconfig}",
            f"--hostname-override={NODE}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={POD_NETWORK}",
            # The size of the connection table belongs to the whole machine.
            "--conntrack-max-per-core=0",
            "--conntrack-min=0",
            netns=net.namespace,
        )

    def _daemon(self, program: str, *arguments: str, netns: Path | None, env: dict[str, str] | None = None) -> None:
        folder = binaries.CONTAINERD if program == "containerd" else binaries.KUBERNETES
        command = [str(folder.build() / program), *arguments, *self.more_arguments.get(program, ())]
        processes.start(command, log=self.logs / f"{program}.log", netns=netns, env=env)

    def _write_kubeconfig(self, server: str, certificate: Path, token: str) -> None:
        # The API server signs its own certificate; the file holds the authority too.
        authority = base64.b64encode(certificate.read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self._id, "cluster": {"server": server, "certificate-authority-data": authority}}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": self._id, "context": {"cluster": self._id, "user": "admin"}}],
            "current-context": self._id,
        }
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps(config, indent=2))

    def _require(self) -> None:
        binaries.KUBERNETES.build()
        binaries.KUBECTL.build()
        if not self.control_plane_only:
            packages.ensure(*packages.NODE)
            binaries.CONTAINERD.build()

    # Looking at it

    def _api_is_ready(self) -> bool:
        config = json.loads(self.kubeconfig.read_text())
        trust = ssl.create_default_context(cafile=str(self.state / "pki" / "apiserver.crt"))
        request = urllib.request.Request(f"{config['clusters'][0]['cluster']['server']}/readyz")
        request.add_header("Authorization", f"Bearer {config['users'][0]['user']['token']}")
        direct = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )
        try:
            with direct.open(request, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _has_service_account(self) -> bool:
        return bool(self.kubectl("get", "serviceaccounts", "default", "--ignore-not-found", "-o", "name"))

    def _node_is_ready(self) -> bool:
        path = "-o=jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        return self.kubectl("get", "nodes", NODE, "--ignore-not-found", path) == "True"

    def _dns_is_ready(self) -> bool:
        path = "-o=jsonpath={.status.availableReplicas}"
        return self.kubectl("get", "deployments", "coredns", "--namespace=kube-system", path) == "1"

    def _wait(self, condition: Callable[[], bool], *, timeout_s: float, what: str, log: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                tail = (self.logs / f"{log}.log").read_text().splitlines()[-20:]
                raise RuntimeError(
                    f"{what} after {timeout_s:.0f} s. Logs in {self.logs}, the end of {log}.log:\n" + "\n".join(tail)
                )
            time.sleep(0.05)

    def processes(self) -> dict[int, str]:
        """What runs of it, also what others started with its kubeconfig: process id to program."""
        return processes.belonging(cache.folder() / "bin", [self.state, self._sockets])

    # Removing it

    def _remove(self, what: str) -> None:
        found = self.processes()
        if not found and not any(path.exists() for path in (self.state, self._sockets, network.namespace(self._id))):
            return
        with step(what):
            self._restore_kernel_settings()
            deadline = time.monotonic() + 20
            while found := self.processes():  # again: containerd may just have started a shim
                processes.kill(found)
                processes.wait_for_end(found, timeout_s=deadline - time.monotonic())
            if not self.control_plane_only or self._sockets.exists():
                cgroups.remove(self._id)
                self._remove_strays()
                _unmount_below(self.state, self._sockets)
                network.remove(self._id)
            if self._sockets.exists():
                shutil.rmtree(self._sockets)
            if self.state.exists():
                _discard(self.state)

    def _remove_strays(self) -> None:
        """Remove the files that containerd, its shims and the kubelet put at fixed places."""
        for bootstrap in self._sockets.glob("containerd/io.containerd.runtime.v2.task/k8s.io/*/bootstrap.json"):
            Path(json.loads(bootstrap.read_text())["address"].removeprefix("unix://")).unlink(missing_ok=True)
        for result in Path("/var/lib/cni/results").glob(f"{self._id}-{'[0-9a-f]' * 64}-*"):
            result.unlink(missing_ok=True)
        for link in Path("/var/log/containers").glob("*"):
            if link.is_symlink() and str(link.readlink()).startswith(f"{self.state}/"):
                link.unlink(missing_ok=True)
        if _DEVICE_PLUGINS.is_socket() and not _is_listening(_DEVICE_PLUGINS):
            _DEVICE_PLUGINS.unlink(missing_ok=True)
        for folder in _SHARED_FOLDERS:
            with contextlib.suppress(OSError):  # absent, or others use it
                folder.rmdir()

    @contextlib.contextmanager
    def _kernel_settings_kept(self) -> Iterator[None]:
        with cache.lock("kernel-settings"):
            self._kernel_settings.write_text(
                json.dumps({str(file): file.read_text() for file in _KERNEL_SETTINGS if file.exists()})
            )
            try:
                yield
            finally:
                self._restore_kernel_settings()

    def _restore_kernel_settings(self) -> None:
        if not self._kernel_settings.exists():
            return
        for file, value in json.loads(self._kernel_settings.read_text()).items():
            if Path(file).read_text() != value:
                Path(file).write_text(value)
        self._kernel_settings.unlink()

    # Names

    @property
    def _id(self) -> str:
        """Its name where it meets other things of the machine."""
        return f"{_PREFIX}{self.name}"

    @property
    def _sockets(self) -> Path:
        return _SOCKETS / self.name

    @property
    def _containerd(self) -> Path:
        return self._sockets / "containerd.sock"

    @property
    def _kernel_settings(self) -> Path:
        return self.state / "kernel-settings.json"

    @property
    def _identity_file(self) -> Path:
        return self.state / "identity"

    @property
    def _identity(self) -> str:
        """What distinguishes this cluster from one that another checkout left up."""
        modules = [binaries.KUBERNETES, binaries.CONTAINERD]
        own = [_HERE / name for name in ("cluster.py", "network.py", "cgroups.py", "coredns.yaml", "containerd.toml")]
        return cache.key(
            *(module.folder.name for module in modules),
            cache.files_key(_HERE, own),
            str(self.control_plane_only),
            str(self.egress),
            repr(sorted(self.more_arguments.items())),
        )

    def _ctr(self, *arguments: str) -> str:
        command = [
            str(binaries.CONTAINERD.build() / "ctr"),
            f"--address={self._containerd}",
            "--namespace=k8s.io",
            *arguments,
        ]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
        return done.stdout


_NODE_PROGRAMS = ("containerd", "kubelet", "kube-proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Endpoints:
    """Where the control plane listens."""

    etcd: str
    etcd_peers: str
    api_address: str
    api_port: int

    @property
    def api(self) -> str:
        return f"https://{self.api_address}:{self.api_port}"

    @classmethod
    def in_namespace(cls, address: str) -> "_Endpoints":
        return cls(etcd="http://127.0.0.1:2379", etcd_peers="http://127.0.0.1:2380", api_address=address, api_port=6443)

    @classmethod
    def on_free_ports(cls) -> "_Endpoints":
        etcd, peers, api = free_ports(3)
        return cls(
            etcd=f"http://127.0.0.1:{etcd}",
            etcd_peers=f"http://127.0.0.1:{peers}",
            api_address="127.0.0.1",
            api_port=api,
        )


def is_whole(certificate: Path) -> bool:
    """Whether it is written to its end. The API server makes the file first: seen empty on a busy machine."""
    return certificate.exists() and certificate.read_text().endswith("-----END CERTIFICATE-----\n")


def _resolv_conf() -> Path:
    """The file with the machine's real name servers: a local resolver cannot be reached from a pod."""
    systemd = Path("/run/systemd/resolve/resolv.conf")
    return systemd if systemd.exists() else Path("/etc/resolv.conf")


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _unmount_below(*folders: Path) -> None:
    """Unmount everything below the folders, so that removing them cannot reach into what was mounted there."""
    for target in reversed(_mounts_below(folders)):
        subprocess.run(["umount", "--lazy", target], capture_output=True)
    if left := _mounts_below(folders):
        raise RuntimeError(f"still mounted: {', '.join(left)}")


#: Nobody waits for them: they end by themselves, also when this process has ended.
_REMOVALS: list[subprocess.Popen[bytes]] = []


def _discard(folder: Path) -> None:
    """Remove a folder whose place is free at once: it holds the files of all images, and their removal takes a while
    (16 s on a busy machine). What an interrupted removal left goes along."""
    discarded = cache.folder() / "discarded"
    discarded.mkdir(exist_ok=True)
    folder.rename(discarded / f"{folder.name}-{secrets.token_hex(4)}")
    left = [str(path) for path in discarded.iterdir()]
    command = ["nice", "rm", "-rf", "--", *left]
    _REMOVALS.append(subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL))


def _mounts_below(folders: Sequence[Path]) -> list[str]:
    targets = (
        line.split()[4].encode().decode("unicode_escape")
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    )
    return [target for target in targets if any(target.startswith(f"{folder}/") for folder in folders)]
