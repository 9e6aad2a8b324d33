"""Services that cannot work: each says why and what to do, and disturbs nobody.

All are applied at once and then looked at one by one, so that they are one wait.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from draftmark.api import names
from draftmark.cluster.kinds import DEPLOYMENTS, INFERENCE_SERVICES, SERVICES
from e2e.models import CLAIM
from e2e.tools import SYSTEM_NAMESPACE
from tests.e2e.api import Json, Namespace, eventually, restarts
from tests.e2e.installed import HOME, Client, Installed, inference_service, make_namespace

#: Text that would do harm wherever text is pasted into text.
HOSTILE = "'\"}]\n---\nkind: Secret\n# {{ 7*7 }} {% raw %} ${HOME} $(HOME) %s \\ \u2028 \U0001f980 &a *a !!python/none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A service that cannot work, and what it says."""

    service: Json
    #: The condition that says it, False or (Stalled) True.
    condition: str = "Ready"
    reason: str
    #: What is, and the way out.
    words: tuple[str, ...]
    #: Whether its pods get ready nevertheless, and what it says must still be said then.
    available: bool = False
    namespace: str = "e2e-bad"

    @property
    def name(self) -> str:
        return str(self.service["metadata"]["name"])


CASES = (
    Bad(
        service=inference_service("no-claim", uri="pvc://nowhere/tiny.gguf"),
        reason="ClaimNotFound",
        words=(
            "'nowhere' does not exist in namespace 'e2e-bad'",
            f"it has: {CLAIM}",
            "Create it, or correct model.uri",
        ),
    ),
    Bad(
        # Port 1 of the node: refused at once, where a name would be looked for.
        service=inference_service("no-image", engine={"image": "127.0.0.1:1/nobody/engine:none", "version": "v0.7.0"}),
        reason="ImagePullFailed",
        words=("'127.0.0.1:1/nobody/engine:none' cannot be pulled", "Check the name and tag", "imagePullSecrets"),
    ),
    Bad(
        service=inference_service("crash", uri=f"pvc://{CLAIM}/broken.gguf"),
        reason="EngineCrashed",
        words=("ended with exit code 1", "End of its log: ", "exiting due to model loading error"),
    ),
    Bad(
        service=inference_service("over-quota"),
        namespace="e2e-quota",
        reason="QuotaExceeded",
        words=(
            "exceeded quota: small",
            "requested: limits.memory=512Mi",
            "limited: limits.memory=100Mi",
            "Raise the quota",
        ),
    ),
    Bad(
        service=inference_service("taken"),
        available=True,
        reason="NameConflict",
        words=(
            'Service "taken" in namespace "e2e-bad" exists already',
            "was not created by Draftmark",
            "Delete or rename",
        ),
    ),
    Bad(
        service=inference_service("pod-field", podTemplate={"hostNetwork": True}),
        condition="Accepted",
        reason="PodTemplateForbidden",
        words=("may not set hostNetwork", "Allowed: ", "nodeSelector", "Remove the field"),
    ),
    Bad(
        service=inference_service("bad-flag", engine={"args": ["--flash-atn", "on"]}),
        condition="Accepted",
        reason="InvalidArgs",
        words=("--flash-atn", "--flash-attn"),
    ),
    Bad(
        service=inference_service("bad-uri", uri="pvc://only-a-claim"),
        condition="Accepted",
        reason="UnreadableModelUri",
        words=("'pvc://only-a-claim' names no file on a claim", "Write pvc://CLAIM/PATH/FILE.gguf"),
    ),
    Bad(
        service=inference_service("hostile-uri", uri=f"pvc://{HOSTILE}"),
        condition="Accepted",
        reason="UnreadableModelUri",
        words=("names no file on a claim", "Write pvc://CLAIM/PATH/FILE.gguf"),
    ),
)


@dataclass(frozen=True, slots=True)
class Applied:
    """All bad services, and how things were before them."""

    namespaces: dict[str, Namespace]
    foreign: Json
    good: Json
    good_lives: dict[str, int]
    operator_lives: dict[str, int]
    began: float = field(default_factory=time.monotonic)


@pytest.fixture(scope="module")
def applied(installed: Installed, home: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    home.wait_until_settled("good")
    good, lives = home.service("good"), home.pod_lives("good")
    broken = tmp_path_factory.mktemp("model") / "broken.gguf"
    broken.write_text("This is no model.")
    installed.target.place(broken)
    spaces = {name: make_namespace(installed, name) for name in ("e2e-bad", "e2e-quota")}
    quota = {"metadata": {"name": "small", "namespace": "e2e-quota"}, "spec": {"hard": {"limits.memory": "100Mi"}}}
    foreign = {"metadata": {"name": "taken", "namespace": "e2e-bad"}, "spec": {"ports": [{"port": 7}]}}
    installed.tools.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", **quota}, {"apiVersion": "v1", "kind": "Service", **foreign}
    )
    stored = installed.api.get(SERVICES, "e2e-bad", "taken")
    assert stored is not None
    operators = {pod["metadata"]["name"]: restarts(pod) for pod in installed.operators()}
    for name, namespace in spaces.items():
        namespace.apply(*(bad.service for bad in CASES if bad.namespace == name))
    spaces["e2e-bad"].apply(_hostile())
    yield Applied(spaces, stored, good, lives, operators)
    for bad in CASES:
        installed.api.delete(INFERENCE_SERVICES, bad.namespace, bad.name)


def _hostile() -> Json:
    """A service that is right, with hostile text wherever any text is right."""
    environment = [{"name": "HOSTILE", "value": HOSTILE}]
    return inference_service(
        "hostile",
        engine={"args": ["--reasoning-budget-message", HOSTILE], "env": environment},
        podTemplate={"metadata": {"annotations": {"example.com/hostile": HOSTILE}}},
    )


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_a_service_that_cannot_work_says_why_and_what_to_do(applied: Applied, bad: Bad) -> None:
    namespace = applied.namespaces[bad.namespace]

    def told() -> bool:
        found = namespace.conditions(bad.name)
        if bad.available and found.get("Available", {}).get("status") != "True":
            return False
        return found.get(bad.condition, {}).get("reason") == bad.reason and found["Stalled"]["status"] == "True"

    eventually(f"{bad.condition} of {bad.name} is {bad.reason}, and it is Stalled", told, within_s=60)
    conditions = namespace.conditions(bad.name)
    assert conditions[bad.condition]["status"] == "False"
    assert conditions["Stalled"]["reason"] == bad.reason
    assert [word for word in bad.words if word not in conditions[bad.condition]["message"]] == [], conditions
    assert "Traceback" not in str(conditions)


@pytest.mark.parametrize(
    ("service", "message"),
    [
        pytest.param(inference_service("n" * 41), "longer than 40 characters: choose a shorter name", id="long name"),
        pytest.param(
            inference_service("bad-engine", engine={"name": "llama-ccp"}),
            'Unsupported value: "llama-ccp": supported values: "auto", "llama-cpp"',
            id="unknown engine",
        ),
        pytest.param(
            inference_service("bad-scheme", uri="models/tiny.gguf"),
            "model.uri needs a scheme: use hf://, https://, pvc:// or oci://",
            id="uri without scheme",
        ),
    ],
)
def test_the_api_server_refuses_what_no_cluster_could_serve(applied: Applied, service: Json, message: str) -> None:
    with pytest.raises(RuntimeError) as refused:
        applied.namespaces["e2e-bad"].apply(service)
    assert message in str(refused.value)


def test_hostile_text_arrives_as_it_was_written(applied: Applied) -> None:
    namespace = applied.namespaces["e2e-bad"]
    namespace.wait_until_ready("hostile")
    template = namespace.child("hostile", DEPLOYMENTS, names.ROLE_ENGINE)["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["args"][-2:] == ["--reasoning-budget-message", HOSTILE]
    assert {"name": "HOSTILE", "value": HOSTILE} in container["env"]
    assert template["metadata"]["annotations"]["example.com/hostile"] == HOSTILE


def test_a_foreign_service_of_our_name_is_left_alone(applied: Applied, installed: Installed) -> None:
    assert installed.api.get(SERVICES, "e2e-bad", "taken") == applied.foreign


def test_good_services_do_not_notice(
    applied: Applied, home: Namespace, installed: Installed, client: Client, measured: list[str]
) -> None:
    assert home.service("good") == applied.good
    assert home.pod_lives("good") == applied.good_lives
    began = time.monotonic()
    home.api.delete(SERVICES, HOME, "good")

    def is_back() -> bool:
        return home.api.get(SERVICES, HOME, "good") is not None

    eventually("its Service is back", is_back, within_s=5, every_s=0.05)
    measured.append(
        f"a deleted Service is back, among {len(CASES)} services that cannot work: {time.monotonic() - began:.2f} s"
    )


def test_the_operator_bears_it(applied: Applied, installed: Installed) -> None:
    assert {pod["metadata"]["name"]: restarts(pod) for pod in installed.operators()} == applied.operator_lives
    for pod in applied.operator_lives:
        log = installed.tools.kubectl("logs", pod, f"--namespace={SYSTEM_NAMESPACE}")
        assert [line for line in log.splitlines() if "Traceback" in line or '"level": "error"' in line] == []
