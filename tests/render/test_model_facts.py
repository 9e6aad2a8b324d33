"""The Job that reads the facts of a model."""

from typing import Any

import pytest

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.facts.model_question import ModelQuestion, ask_about
from draftmark.render.metadata import Place
from draftmark.render.model_facts import render_model_facts_job
from draftmark.render.pod import render_pod_template
from tests.specs import NAME, NAMESPACE, UID, Object, parse, spec, with_field

PLACE = Place(service=NAME, namespace=NAMESPACE, uid=UID)
CLAIM = spec(
    model={"uri": "pvc://weights/llama"},
    engine={"name": "vllm"},
    accelerator={"product": "NVIDIA-L4"},
    podTemplate={
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "team", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "pull"}],
        "securityContext": {"runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [3000]},
    },
)
HUB = spec(model={"uri": "hf://org/repo", "revision": "v1", "authSecretRef": {"name": "hub", "key": "token"}})


def job(wanted: Object, *, attempt: int = 0, defaults: Object | None = None) -> Any:
    read = parse(wanted)
    question = ask_about(read.model)
    assert isinstance(question, ModelQuestion)
    return render_model_facts_job(
        PLACE, read, question, attempt=attempt, defaults=Defaults.model_validate(defaults or {})
    )


def container(wanted: Object, **how: Any) -> Any:
    [found] = job(wanted, **how)["spec"]["template"]["spec"]["containers"]
    return found


def test_a_claim_is_read_as_the_engine_reads_it() -> None:
    made = job(CLAIM)
    name = made["metadata"]["name"]
    labels = {
        "app.kubernetes.io/name": "draftmark-inference",
        "app.kubernetes.io/instance": NAME,
        "app.kubernetes.io/component": "model-facts",
        "app.kubernetes.io/part-of": NAME,
        "app.kubernetes.io/managed-by": "draftmark",
        "draftmark.dev/service": NAME,
        "draftmark.dev/role": "model-facts",
    }
    assert made == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "ownerReferences": PLACE.owners()},
        "spec": {
            "backoffLimit": 3,
            "activeDeadlineSeconds": 360,
            "ttlSecondsAfterFinished": 600,
            "template": {
                "metadata": {"labels": {**labels, "draftmark.dev/job": name}},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 1,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 1000,
                        "runAsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                        "fsGroup": 2000,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "supplementalGroups": [3000],
                    },
                    "nodeSelector": {"disk": "fast"},
                    "tolerations": [
                        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                        {"key": "team", "operator": "Exists"},
                    ],
                    "imagePullSecrets": [{"name": "pull"}],
                    "containers": [
                        {
                            "name": "reader",
                            "image": "ghcr.io/draftmark/operator:0.2.0",
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["python3", "-m", "draftmark.model_facts_reader"],
                            "args": ["mounted", "--root=/model", "--path=llama", "--source=pvc://weights/llama"],
                            "resources": {
                                "requests": {"cpu": "20m", "memory": "64Mi"},
                                "limits": {"cpu": "1", "memory": "384Mi"},
                            },
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": [{"name": "draftmark-model", "mountPath": "/model", "readOnly": True}],
                        }
                    ],
                    "volumes": [
                        {
                            "name": "draftmark-model",
                            "persistentVolumeClaim": {"claimName": "weights", "readOnly": True},
                        }
                    ],
                },
            },
        },
    }


def test_its_user_is_the_engines() -> None:
    from draftmark.facts.nodes import ClusterFacts
    from draftmark.plan import Plan
    from draftmark.planner.planner import make_plan

    read = parse(CLAIM)
    plan = make_plan(read, name=NAME, cluster=ClusterFacts(), defaults=Defaults(), keep=None)
    assert isinstance(plan, Plan)
    engine = render_pod_template(NAME, read, plan, Defaults())["spec"]
    assert job(CLAIM)["spec"]["template"]["spec"]["securityContext"] == engine["securityContext"]


def test_an_image_is_mounted_and_pulled_with_the_same_secrets() -> None:
    wanted = spec(model={"uri": "oci://registry.example/model:1#dir/model.gguf"})
    pod = job(wanted, defaults={"imagePullSecrets": [{"name": "default"}]})["spec"]["template"]["spec"]
    [volume] = pod["volumes"]
    assert volume["image"]["reference"] == "registry.example/model:1"
    assert "--path=dir/model.gguf" in pod["containers"][0]["args"]
    assert pod["imagePullSecrets"] == [{"name": "default"}]
    assert "--path=" in container(spec(model={"uri": "oci://registry.example/model:1"}))["args"]


def test_the_hub_is_asked_with_the_token_of_the_secret() -> None:
    found = container(HUB)
    assert found["args"] == [
        "hub", "--endpoint=https://huggingface.co", "--redirect-host=*.hf.co", "--repository=org/repo", "--revision=v1",
    ]  # fmt: skip
    assert found["env"] == [
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
    ]
    pod = job(with_field(HUB, "podTemplate.nodeSelector.disk", "fast"))["spec"]["template"]["spec"]
    assert not pod.keys() & {"volumes", "nodeSelector"}


@pytest.mark.parametrize(
    ("uri", "flag"),
    [
        ("hf://org/repo:Q4_K_M", "--quantization=Q4_K_M"),
        ("hf://org/repo/dir/m.gguf", "--file=dir/m.gguf"),
        ("hf://org/repo/-m.gguf", "--file=-m.gguf"),
    ],
)
def test_what_is_read_of_a_repository_is_one_word(uri: str, flag: str) -> None:
    assert container(spec(model={"uri": uri}))["args"][-1] == flag


@pytest.mark.parametrize(
    ("hub", "words"),
    [
        ({"endpoint": "https://mirror.example/hf"}, ["--endpoint=https://mirror.example/hf"]),
        ({"redirectHosts": ["cdn.example"]}, ["--endpoint=https://huggingface.co", "--redirect-host=cdn.example"]),
        ({"endpoint": "http://mirror", "allowHttp": True}, ["--endpoint=http://mirror", "--allow-http"]),
    ],
)
def test_whom_to_ask_is_the_administrators_choice(hub: Object, words: list[str]) -> None:
    args = container(HUB, defaults={"hub": hub})["args"]
    assert args[1 : 1 + len(words)] == words
    assert args[1 + len(words)].startswith("--repository")


def test_the_same_question_has_the_same_name_and_everything_else_another() -> None:
    other_image = {"traffic": {"reloaderImage": "registry.example/operator:2"}}
    made = [
        job(CLAIM), job(CLAIM, attempt=1), job(CLAIM, defaults=other_image), job(HUB),
        job(with_field(CLAIM, "model.uri", "pvc://weights/other")),
        job(with_field(CLAIM, "podTemplate.nodeSelector.disk", "slow")),
        job(with_field(HUB, "model.revision", "v2")), job(with_field(HUB, "model.authSecretRef.name", "other")),
    ]  # fmt: skip
    names_made = [item["metadata"]["name"] for item in made]
    assert len(set(names_made)) == len(made)
    assert job(CLAIM)["metadata"]["name"] == names_made[0]
    # What no answer depends on asks nothing anew.
    assert job(with_field(CLAIM, "replicas", 5))["metadata"]["name"] == names_made[0]
    assert all(len(name) <= 63 for name in names_made)


def test_it_is_found_by_no_service_of_ours() -> None:
    labels = job(CLAIM)["spec"]["template"]["metadata"]["labels"]
    for role in (names.ROLE_ENGINE, names.ROLE_ROUTER, names.ROLE_GATEWAY):
        assert not names.selector_labels(NAME, role).items() <= labels.items()
