"""The Helm chart as Helm renders it: one `helm template` for most tests."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from draftmark.api.defaults import (
    BenchmarkDefaults,
    Defaults,
    HubDefaults,
    NetworkDefaults,
    PriceDefaults,
    TrafficDefaults,
)
from draftmark.api.images import mirrored
from draftmark.cli.run import run
from draftmark.engines.registry import ENGINES
from draftmark.render.gateway import DEFAULT_RELOADER_IMAGE
from draftmark.render.router import ROLE as ROUTER_ROLE
from tests.golden_cases import golden_cases

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "draftmark"
NAMESPACE = "draftmark-system"

Object = dict[str, Any]


def find_helm() -> str:
    """The helm to use, in the order: DRAFTMARK_HELM, what `make test` built, PATH."""
    if named := os.environ.get("DRAFTMARK_HELM"):
        return named
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "draftmark"
    cache = Path(os.environ.get("DRAFTMARK_CACHE") or base).expanduser()
    built = sorted(cache.glob("bin/*/helm"), key=lambda path: path.stat().st_mtime)
    found = str(built[-1]) if built else shutil.which("helm")
    if found is None:
        pytest.fail(
            f"No helm: not in DRAFTMARK_HELM, {cache}/bin/*/ or PATH. Run `make test`, which builds it, or set "
            "DRAFTMARK_HELM to its path.",
            pytrace=False,
        )
    return found


def helm(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([find_helm(), *args], capture_output=True, text=True, timeout=60)


def render(*args: str) -> list[Object]:
    answer = helm("template", "draftmark", str(CHART), "--namespace", NAMESPACE, *args)
    assert answer.returncode == 0, answer.stderr
    return [document for document in yaml.safe_load_all(answer.stdout) if document]


@pytest.fixture(scope="module")
def rendered() -> list[Object]:
    """Everything, with the values as they are."""
    return render()


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [item for item in objects if item["kind"] == kind]


def pod_templates(objects: list[Object]) -> Iterator[Object]:
    for item in objects:
        if isinstance(template := item.get("spec", {}).get("template"), dict):
            yield template


def test_lint_has_nothing_to_say() -> None:
    answer = helm("lint", "--strict", str(CHART))
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_object_is_whole_and_named_once(rendered: list[Object]) -> None:
    assert all({"apiVersion", "kind", "metadata"} <= set(item) for item in rendered)
    names = [(item["kind"], item["metadata"]["name"]) for item in rendered]
    assert len(names) == len(set(names))


def test_namespaced_objects_are_in_the_release_namespace(rendered: list[Object]) -> None:
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    for item in rendered:
        assert (item["metadata"].get("namespace") == NAMESPACE) is (item["kind"] not in cluster_wide)


def test_pods_meet_the_restricted_standard(rendered: list[Object]) -> None:
    templates = list(pod_templates(rendered))
    assert templates
    for template in templates:
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all(set(volume) <= {"name", "configMap", "emptyDir"} for volume in pod["volumes"])
        for container in pod["containers"] + pod.get("initContainers", []):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]


def test_rights_name_no_secret_and_no_wildcard(rendered: list[Object]) -> None:
    roles = of_kind(rendered, "ClusterRole") + of_kind(rendered, "Role")
    assert len(roles) == 5
    for role in roles:
        for rule in role["rules"]:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not any("*" in word for word in words)
            assert not {"secrets", "escalate", "bind", "impersonate"} & words


def test_operator_gets_the_generated_rules(rendered: list[Object]) -> None:
    rules = yaml.safe_load((CHART / "files/rbac/cluster-role.yaml").read_text())
    (role,) = (r for r in of_kind(rendered, "ClusterRole") if r["metadata"]["name"] == f"{NAMESPACE}:draftmark")
    assert role["rules"] == rules
    (own,) = of_kind(rendered, "Role")
    assert own["rules"] == yaml.safe_load((CHART / "files/rbac/role.yaml").read_text())


def test_gpus_that_drivers_publish_may_be_read_and_nothing_else(rendered: list[Object]) -> None:
    (role,) = (r for r in of_kind(rendered, "ClusterRole") if r["metadata"]["name"] == f"{NAMESPACE}:draftmark")
    [rule] = [rule for rule in role["rules"] if "resource.k8s.io" in rule["apiGroups"]]
    assert rule == {
        "apiGroups": ["resource.k8s.io"], "resources": ["resourceslices"], "verbs": ["get", "list", "watch"],
    }  # fmt: skip


def test_routers_may_look_at_pods_and_nothing_else(rendered: list[Object]) -> None:
    (role,) = (role for role in of_kind(rendered, "ClusterRole") if role["metadata"]["name"] == ROUTER_ROLE)
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    # Without these rights of its own the operator may not give them away.
    own = yaml.safe_load((CHART / "files/rbac/cluster-role.yaml").read_text())
    assert any("pods" in rule["resources"] and {"get", "list", "watch"} <= set(rule["verbs"]) for rule in own)


def test_bindings_lead_from_the_pods_to_the_roles(rendered: list[Object]) -> None:
    (account,) = of_kind(rendered, "ServiceAccount")
    (deployment,) = of_kind(rendered, "Deployment")
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == account["metadata"]["name"]
    for binding in of_kind(rendered, "ClusterRoleBinding") + of_kind(rendered, "RoleBinding"):
        role = binding["roleRef"]
        assert role["name"] in {item["metadata"]["name"] for item in of_kind(rendered, role["kind"])}
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": NAMESPACE}
        ]


def test_users_get_rights_through_the_clusters_own_roles(rendered: list[Object]) -> None:
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    roles = {item["metadata"]["name"].rpartition(":")[2]: item for item in of_kind(rendered, "ClusterRole")}
    assert f"{prefix}view" in roles["view"]["metadata"]["labels"]
    assert f"{prefix}view" not in roles["edit"]["metadata"]["labels"]
    assert f"{prefix}edit" in roles["edit"]["metadata"]["labels"]
    verbs = {verb for rule in roles["view"]["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"}
    for role in ("view", "edit"):
        (objects,) = (r for r in roles[role]["rules"] if "modelgateways" in r["resources"])
        assert {"inferenceservices", "benchmarks"} <= set(objects["resources"])
    scale = [r for r in roles["edit"]["rules"] if "inferenceservices/scale" in r["resources"]]
    assert scale
    assert {"update", "patch"} <= set(scale[0]["verbs"])


def test_two_replicas_that_drains_take_one_by_one(rendered: list[Object]) -> None:
    (deployment,) = of_kind(rendered, "Deployment")
    (budget,) = of_kind(rendered, "PodDisruptionBudget")
    assert deployment["spec"]["replicas"] == 2
    assert budget["spec"]["maxUnavailable"] == 1
    assert "podAntiAffinity" in deployment["spec"]["template"]["spec"]["affinity"]


def test_selectors_match_the_pods(rendered: list[Object]) -> None:
    (deployment,) = of_kind(rendered, "Deployment")
    (service,) = of_kind(rendered, "Service")
    (budget,) = of_kind(rendered, "PodDisruptionBudget")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        budget["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
    ):
        assert selector.items() <= labels
    (port,) = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert [(p["name"], p["port"], p["targetPort"]) for p in service["spec"]["ports"]] == [
        ("http-metrics", 8080, port["name"])
    ]


def test_defaults_are_what_the_operator_accepts_and_are_mounted_where_it_looks(rendered: list[Object]) -> None:
    (config,) = of_kind(rendered, "ConfigMap")
    defaults = Defaults.model_validate(yaml.safe_load(config["data"]["defaults.yaml"]))
    assert defaults.engines is not None
    for name, engine in defaults.engines.items():
        assert engine.version is not None
        assert ENGINES[name].flag_table(engine.version) is not None
    (template,) = pod_templates(rendered)
    (container,) = template["spec"]["containers"]
    assert "--defaults=/etc/draftmark/defaults.yaml" in container["args"]
    assert {"name": "defaults", "mountPath": "/etc/draftmark", "readOnly": True} in container["volumeMounts"]
    assert template["spec"]["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]


def read_defaults(objects: list[Object]) -> Defaults:
    (config,) = of_kind(objects, "ConfigMap")
    return Defaults.model_validate(yaml.safe_load(config["data"]["defaults.yaml"]))


def test_defaults_tell_what_only_the_release_knows(rendered: list[Object], changed: list[Object]) -> None:
    (template,) = pod_templates(rendered)
    left_alone = read_defaults(rendered)
    assert left_alone.traffic == TrafficDefaults(reloader_image=template["spec"]["containers"][0]["image"])
    assert left_alone.network == NetworkDefaults(operator_namespace=NAMESPACE, monitoring_namespaces=())
    assert left_alone.namespaced is False
    assert left_alone.hub == HubDefaults()
    (template,) = pod_templates(changed)
    told = read_defaults(changed)
    assert told.traffic == TrafficDefaults(
        gateway_image="registry.example/haproxy:1",
        router_image="smg:1",
        reloader_image=template["spec"]["containers"][0]["image"],
    )
    assert told.network == NetworkDefaults(operator_namespace="ops", monitoring_namespaces=("monitoring",))
    assert told.namespaced is True


def test_nodes_that_can_be_had_reach_the_operator_in_their_order(rendered: list[Object]) -> None:
    assert read_defaults(rendered).node_timeout_s is None
    kinds = [{"product": "NVIDIA-L4", "gpusPerNode": 4}, {"product": "NVIDIA-H200", "gpusPerNode": 8, "nodes": 2}]
    set_ = f"--set-json=defaults.nodeAutoscaling.accelerators={json.dumps(kinds)}"
    told = read_defaults(render("--set=defaults.nodeAutoscaling.enabled=true", set_))
    assert (told.node_timeout_s, [one.product for one in told.obtainable]) == (900, ["NVIDIA-L4", "NVIDIA-H200"])


def test_versions_are_one() -> None:
    """The gateway's pod runs a program of the operator's image, and the chart installs that image."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert {chart["version"], chart["appVersion"], DEFAULT_RELOADER_IMAGE.rpartition(":")[2]} == {version("draftmark")}


def test_emptied_defaults_are_filled_in() -> None:
    emptied = ("--set", "defaults.traffic=null", "--set", "defaults.network=null")
    told = read_defaults(render(*emptied, "--set", "image.repository=own", "--set", "image.tag=x"))
    assert told.traffic == TrafficDefaults(reloader_image="own:x")
    assert told.network == NetworkDefaults(operator_namespace=NAMESPACE)
    assert read_defaults(render("--set", "defaults.traffic.reloaderImage=b:1")).traffic == TrafficDefaults(
        reloader_image="b:1"
    )


def test_the_hub_is_the_administrators() -> None:
    mirror = ("--set", "defaults.hub.endpoint=https://hub.example/api", "--set", "defaults.hub.allowHttp=true")
    told = read_defaults(render(*mirror, "--set", "defaults.hub.redirectHosts={a.example,*.b.example}"))
    assert told.hub == HubDefaults(
        endpoint="https://hub.example/api", redirect_hosts=("a.example", "*.b.example"), allow_http=True
    )
    assert read_defaults(render("--set", "defaults.hub=null")).hub == HubDefaults()


def test_how_models_are_measured_is_the_administrators() -> None:
    assert read_defaults(render()).benchmarks == BenchmarkDefaults()
    kept = ("--set", "defaults.benchmarks.ttlAfterFinished=168h", "--set", "defaults.benchmarks.historyLimit=5")
    asked = ("--set", "defaults.benchmarks.prometheus=http://[fd00::7]:9090/prometheus")
    told = read_defaults(render("--set", "defaults.benchmarks.image=registry.example/benchmark:1", *kept, *asked))
    assert told.benchmarks == BenchmarkDefaults(
        image="registry.example/benchmark:1",
        ttl_after_finished="168h",
        history_limit=5,
        prometheus="http://[fd00::7]:9090/prometheus",
    )


def test_what_accelerators_cost_is_the_administrators() -> None:
    assert read_defaults(render()).prices is None
    told = read_defaults(
        render("--set", "defaults.prices.currency=EUR", "--set-json", 'defaults.prices.perHour={"NVIDIA-L4": 0.8}')
    )
    assert told.prices == PriceDefaults(currency="EUR", per_hour={"NVIDIA-L4": 0.8})


def test_definitions_stay_when_the_release_goes(rendered: list[Object]) -> None:
    definitions = of_kind(rendered, "CustomResourceDefinition")
    sources = {
        item["metadata"]["name"]: item
        for path in (CHART / "files/crds").glob("*.yaml")
        for item in yaml.safe_load_all(path.read_text())
    }
    assert "inferenceservices.draftmark.dev" in sources, "charts/draftmark/files/crds is empty. Run `make generate`."
    assert len(definitions) == len(sources)
    for definition in definitions:
        assert definition["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert definition == sources[definition["metadata"]["name"]]


def test_the_routers_role_stays_when_the_release_goes(rendered: list[Object], confined: list[Object]) -> None:
    """Services serve on, and their routers must still hear of new engine pods."""
    roles = [
        r for r in of_kind(rendered, "ClusterRole") + of_kind(confined, "Role") if r["metadata"]["name"] == ROUTER_ROLE
    ]
    assert len(roles) == 3
    for role in roles:
        assert role["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@pytest.fixture(scope="module")
def changed() -> list[Object]:
    """Everything, with other values than the usual ones."""
    return render(
        *("--set", "crds.install=false", "--set", "replicas=3", "--set", "defaults.registryMirror=registry.example"),
        *("--set", "metrics.prometheusAnnotations=true", "--set", "podLabels.team=a", "--set", "image.tag=x"),
        *("--set", f"image.digest=sha256:{'0' * 64}", "--set", "imagePullSecrets[0].name=pull"),
        *("--set", "rbac.aggregateToUserRoles=false", "--set", "metrics.service=false", "--set", "workers=3"),
        *("--set", "priorityClassName=high", "--set", "tolerations[0].operator=Exists", "--set", "logLevel=debug"),
        *("--set", "nodeSelector.disk=fast", "--set", "affinity.nodeAffinity.x=y", "--set", "podAnnotations.a=b"),
        *("--set", "defaults.namespaced=true", "--set", "defaults.traffic.gatewayImage=registry.example/haproxy:1"),
        *("--set", "defaults.traffic.routerImage=smg:1", "--set", "defaults.network.operatorNamespace=ops"),
        *("--set", "defaults.network.monitoringNamespaces[0]=monitoring"),
    )


def test_definitions_can_be_left_out(changed: list[Object]) -> None:
    assert of_kind(changed, "CustomResourceDefinition") == []


def test_changed_defaults_roll_the_operator(rendered: list[Object], changed: list[Object]) -> None:
    before, after = (next(pod_templates(objects))["metadata"]["annotations"] for objects in (rendered, changed))
    assert before["checksum/defaults"] != after["checksum/defaults"]


def test_values_arrive(changed: list[Object]) -> None:
    (deployment,) = of_kind(changed, "Deployment")
    assert deployment["spec"]["replicas"] == 3
    template = deployment["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "a"
    assert template["metadata"]["annotations"].items() >= {"a": "b", "prometheus.io/port": "8080"}.items()
    pod = template["spec"]
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert pod["priorityClassName"] == "high"
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert pod["affinity"] == {"nodeAffinity": {"x": "y"}}
    (container,) = pod["containers"]
    assert container["image"].endswith("@sha256:" + "0" * 64)
    assert {"--workers=3", "--log-level=debug"} <= set(container["args"])
    assert of_kind(changed, "Service") == []
    assert [role["metadata"]["name"] for role in of_kind(changed, "ClusterRole")] == [f"{NAMESPACE}:draftmark"]


def test_schema_knows_the_values_and_no_others() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert {*values, "global"} == set(schema["properties"])
    for name, value in values.items():
        described = schema["properties"][name]
        if "properties" in described and name not in {"affinity", "resources"}:  # Kubernetes names what is in these
            assert set(value) == set(described["properties"]), name


def test_schema_refuses_typos_and_wrong_types_and_says_where() -> None:
    answer = helm(
        *("template", "draftmark", str(CHART), "--set", "replica=3", "--set", "workers=many"),
        *("--set", "defaults.engine.x=1", "--set", "logLevel=loud", "--set", "image.digest=latest"),
        *("--set", "defaults.hub.endpoint=ftp://x", "--set", "defaults.hub.redirectHosts={*,*x.example}"),
    )
    assert answer.returncode != 0
    for wrong in (
        "'replica'",
        "/workers",
        "'engine'",
        "/logLevel",
        "/image/digest",
        "/hub/endpoint",
        "/redirectHosts/1",
    ):
        assert wrong in answer.stderr
    answer = helm(
        *("template", "draftmark", str(CHART), "--set", "defaults.nodeAutoscaling.timeout=soon"),
        *("--set", "defaults.benchmarks.prometheus=https://prometheus:9090"),
        *("--set", "defaults.nodeAutoscaling.accelerators[0].product=NVIDIA-L4"),
    )
    for wrong in ("/nodeAutoscaling/timeout", "'gpusPerNode'", "/benchmarks/prometheus"):
        assert wrong in answer.stderr


PROMETHEUS_OPERATOR = [
    f"--api-versions=monitoring.coreos.com/v1/{kind}" for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")
]
MONITORED = [f"--set=monitoring.{what}.create=true" for what in ("serviceMonitor", "podMonitors", "rules", "dashboard")]


@pytest.fixture(scope="module")
def monitored() -> list[Object]:
    """Everything that watches, where the Prometheus Operator is."""
    return render(*MONITORED, *PROMETHEUS_OPERATOR, "--set=monitoring.labels.release=stack")


def test_nothing_watches_unless_it_is_asked_for(rendered: list[Object]) -> None:
    kinds = {item["kind"] for item in [*rendered, *render(*PROMETHEUS_OPERATOR, "--set=monitoring.assumeCRDs=true")]}
    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert len(of_kind(rendered, "ConfigMap")) == 1


def test_absent_definitions_are_no_error() -> None:
    objects = render(*MONITORED)
    assert not {item["kind"] for item in objects} & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assumed = {item["kind"] for item in render(*MONITORED, "--set=monitoring.assumeCRDs=true")}
    assert {"ServiceMonitor", "PodMonitor", "PrometheusRule"} <= assumed


def test_every_part_of_a_service_is_scraped_where_it_tells_its_metrics(monitored: list[Object]) -> None:
    engine, other = render_golden("claim")
    pods = [item["spec"]["template"] for item in [*engine, *other] if item["kind"] == "Deployment"]
    assert len(pods) == 3
    monitors = of_kind(monitored, "PodMonitor")
    for pod in pods:
        [monitor] = [m for m in monitors if m["spec"]["selector"]["matchLabels"].items() <= labels_of(pod).items()]
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        ports = [p for container in pod["spec"]["containers"] for p in container.get("ports", ())]
        [port] = [p["containerPort"] for p in ports if p["name"] == endpoint["port"]]
        told = pod["metadata"].get("annotations", {}).get("prometheus.io/port")
        assert told in (None, str(port))
        targets = {r["targetLabel"] for r in endpoint["relabelings"]}
        assert targets == {"__metrics_path__", "inference_service", "model_gateway", "revision", "role"}
        assert monitor["spec"]["namespaceSelector"] == {"any": True}


def labels_of(pod: Object) -> dict[str, str]:
    return dict(pod["metadata"]["labels"])


def render_golden(name: str) -> tuple[list[Object], list[Object]]:
    """What the operator makes of a golden case: of the engines, and of the rest."""
    case = next(case for case in golden_cases() if case.folder.name == name)
    engine, other = case.rendered()
    return list(yaml.safe_load_all(engine)), list(yaml.safe_load_all(other))


def test_the_operator_is_scraped_with_its_own_labels(monitored: list[Object]) -> None:
    [monitor] = of_kind(monitored, "ServiceMonitor")
    [service] = of_kind(monitored, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert endpoint["honorLabels"] is True


def test_a_monitor_of_nothing_is_refused() -> None:
    answer = helm("template", str(CHART), *MONITORED, *PROMETHEUS_OPERATOR, "--set=metrics.service=false")
    assert answer.returncode != 0
    assert "set metrics.service to true" in answer.stderr


def test_rules_are_those_of_the_file_with_the_objectives_of_the_values(monitored: list[Object]) -> None:
    [made] = of_kind(monitored, "PrometheusRule")
    assert made["spec"] == yaml.safe_load((CHART / "files/monitoring/rules.yaml").read_text("utf-8"))
    assert made["metadata"]["labels"]["release"] == "stack"
    objectives = ("queueDepth=7", "kvCacheUsageRatio=0.8", "timeToFirstTokenSeconds=1.5")
    [other] = of_kind(
        render(*MONITORED, *PROMETHEUS_OPERATOR, *(f"--set=monitoring.rules.{o}" for o in objectives)), "PrometheusRule"
    )
    [group] = [group for group in other["spec"]["groups"] if group["name"] == "draftmark-objectives"]
    assert [rule["expr"] for rule in group["rules"]] == ["vector(7)", "vector(0.8)", "vector(1.5)"]
    assert other["spec"]["groups"][1:] == made["spec"]["groups"][1:]


def test_the_dashboard_is_that_of_the_file_and_grafana_finds_it(monitored: list[Object]) -> None:
    [dashboard] = [item for item in of_kind(monitored, "ConfigMap") if "draftmark.json" in item["data"]]
    assert json.loads(dashboard["data"]["draftmark.json"]) == json.loads(
        (CHART / "files/monitoring/dashboard.json").read_text("utf-8")
    )
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.fixture(scope="module")
def confined() -> list[Object]:
    """Everything, for two namespaces."""
    return render("--set=watchNamespaces={team-a,team-b}")


def test_an_operator_of_some_namespaces_gets_roles_there_and_nothing_of_the_cluster(confined: list[Object]) -> None:
    assert not {item["kind"] for item in confined} & {"ClusterRole", "ClusterRoleBinding"}
    [account] = of_kind(confined, "ServiceAccount")
    rules = yaml.safe_load((CHART / "files/rbac/namespace-role.yaml").read_text("utf-8"))
    roles = {(r["metadata"]["namespace"], r["metadata"]["name"]): r["rules"] for r in of_kind(confined, "Role")}
    pods = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    own = roles.pop((NAMESPACE, "draftmark"))
    assert own == yaml.safe_load((CHART / "files/rbac/role.yaml").read_text("utf-8"))
    assert roles == {
        **{(namespace, f"{NAMESPACE}:draftmark"): rules for namespace in ("team-a", "team-b")},
        **{(namespace, ROUTER_ROLE): pods for namespace in ("team-a", "team-b")},
    }
    granted = {resource for rules in roles.values() for rule in rules for resource in rule["resources"]}
    assert not granted & {"nodes", "resourceslices"}
    for binding in of_kind(confined, "RoleBinding"):
        assert binding["roleRef"]["name"] in {name for _, name in [*roles, (NAMESPACE, "draftmark")]}
        assert [s["name"] for s in binding["subjects"]] == [account["metadata"]["name"]]
        assert [s["namespace"] for s in binding["subjects"]] == [NAMESPACE]
    bound = {b["metadata"]["namespace"] for b in of_kind(confined, "RoleBinding")}
    assert bound == {NAMESPACE, "team-a", "team-b"}


def test_an_operator_of_some_namespaces_is_told_which(confined: list[Object]) -> None:
    [template] = pod_templates(confined)
    args = template["spec"]["containers"][0]["args"]
    assert [arg for arg in args if "namespace" in arg] == ["--watch-namespace=team-a", "--watch-namespace=team-b"]
    options = {option for parameter in run.params for option in parameter.opts}
    assert {arg.partition("=")[0] for arg in args if arg.startswith("--")} <= options
    assert read_defaults(confined).namespaced is True
    monitors = render(*MONITORED, *PROMETHEUS_OPERATOR, "--set=watchNamespaces={team-a}")
    assert {str(m["spec"]["namespaceSelector"]) for m in of_kind(monitors, "PodMonitor")} == {
        "{'matchNames': ['team-a']}"
    }


@pytest.mark.parametrize(
    ("image", "mirrored_image"),
    [
        ("ghcr.io/draftmark/operator", "mirror.example:5000/x/draftmark/operator"),
        ("draftmark/operator", "mirror.example:5000/x/draftmark/operator"),
        ("operator", "mirror.example:5000/x/operator"),
        ("localhost/operator", "mirror.example:5000/x/operator"),
        ("other.example:80/a/b/c", "mirror.example:5000/x/a/b/c"),
    ],
)
def test_one_registry_stands_for_all(image: str, mirrored_image: str) -> None:
    objects = render("--set=global.imageRegistry=mirror.example:5000/x/", f"--set=image.repository={image}")
    [template] = pod_templates(objects)
    found = template["spec"]["containers"][0]["image"]
    assert found.rpartition(":")[0] == mirrored_image
    told = read_defaults(objects)
    # As the operator does it with the images of services.
    assert mirrored(f"{image}:1", told) == f"{mirrored_image}:1"
    assert told.traffic == TrafficDefaults(reloader_image=found)


def test_a_registry_of_the_defaults_counts_for_services() -> None:
    objects = render("--set=global.imageRegistry=a.example", "--set=defaults.registryMirror=b.example")
    assert read_defaults(objects).registry_mirror == "b.example"


def test_pull_secrets_of_all_come_to_the_operator_and_to_services() -> None:
    objects = render(
        "--set=global.imagePullSecrets[0].name=all", "--set=imagePullSecrets[0].name=own", "--set=image.tag=x",
        "--set=defaults.imagePullSecrets[0].name=services", "--set=defaults.imagePullSecrets[1].name=all",
    )  # fmt: skip
    [template] = pod_templates(objects)
    assert template["spec"]["imagePullSecrets"] == [{"name": "all"}, {"name": "own"}]
    assert [s.name for s in read_defaults(objects).image_pull_secrets or ()] == ["all", "services"]


def test_who_may_reach_the_operator(rendered: list[Object]) -> None:
    [policy] = of_kind(rendered, "NetworkPolicy")
    assert (policy["spec"]["policyTypes"], policy["spec"]["ingress"]) == (["Ingress"], [])
    [template] = pod_templates(rendered)
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    [policy] = of_kind(render("--set=defaults.network.monitoringNamespaces={mon,other}"), "NetworkPolicy")
    [rule] = policy["spec"]["ingress"]
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]
    peers = [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in rule["from"]]
    assert peers == ["mon", "other"]
    assert of_kind(render("--set=networkPolicy.create=false"), "NetworkPolicy") == []


def test_replicas_can_be_spread() -> None:
    constraint = "topologySpreadConstraints[0]"
    values = ("maxSkew=1", "topologyKey=topology.kubernetes.io/zone", "whenUnsatisfiable=ScheduleAnyway")
    objects = render(*(f"--set={constraint}.{value}" for value in values))
    [template] = pod_templates(objects)
    [found] = template["spec"]["topologySpreadConstraints"]
    assert found.pop("labelSelector")["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert found == {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "ScheduleAnyway",
    }
    chosen = (*values, "labelSelector.matchLabels.a=b")
    [template] = pod_templates(render(*(f"--set={constraint}.{value}" for value in chosen)))
    assert template["spec"]["topologySpreadConstraints"][0]["labelSelector"] == {"matchLabels": {"a": "b"}}


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ("watchNamespaces={Team}", "/watchNamespaces/0"),
        ("watchNamespaces={a,a}", "/watchNamespaces"),
        ("global.imageRegistry=https://x", "/global/imageRegistry"),
        ("topologySpreadConstraints[0].maxSkew=1", "/topologySpreadConstraints/0"),
        ("networkPolicy.enabled=true", "'enabled'"),
        ("monitoring.rules.queueDepth=many", "/monitoring/rules/queueDepth"),
        ("monitoring.interval=soon", "/monitoring/interval"),
        ("monitoring.podMonitors=true", "/monitoring/podMonitors"),
        ("imagePullSecrets={pull}", "/imagePullSecrets/0"),
        ("defaults.engines.llama-cpp.image=x", "'image'"),
    ],
)
def test_schema_refuses_and_says_where(value: str, where: str) -> None:
    answer = helm("template", "draftmark", str(CHART), f"--set={value}")
    assert answer.returncode != 0
    assert where in answer.stderr
