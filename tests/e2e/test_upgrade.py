"""A service that version 0.1.0 has made, taken over under load: engines go on, and clients move to the gateway."""

import time
from copy import deepcopy
from typing import Any

import yaml

from draftmark.api import names
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.cluster.kinds import DEPLOYMENTS, SERVICES
from e2e.cluster.images import REPOSITORY
from tests.e2e.api import Json, Namespace, eventually
from tests.e2e.flow import standin_service
from tests.e2e.installed import HOME, Client, Installed
from tests.e2e.load import Load, sending

RECORDED = REPOSITORY / "tests" / "upgrade" / "0.1.0" / "children" / "claim"
NAME = "veteran"


def test_a_service_of_0_1_0_moves_to_its_gateway_without_a_lost_request(
    home: Namespace, installed: Installed, client: Client, measured: list[str]
) -> None:
    # Paused, the operator leaves it alone: as it stood while the operator was being upgraded.
    wanted = standin_service(installed, NAME, workload={"concurrency": 8}, replicas=2, paused=True)
    wanted["spec"].pop("traffic")
    home.apply(wanted)
    service = home.service(NAME)
    for child in _as_0_1_0_made_them(service):
        installed.tools.apply(child)
    eventually(
        "its engines are ready",
        lambda: (home.api.get(DEPLOYMENTS, HOME, _engine(home)) or {}).get("status", {}).get("readyReplicas") == 2,
        within_s=40,
    )
    lives = home.pod_lives(NAME)
    url = f"http://{NAME}.{HOME}.svc"
    # The node's proxy may know of the pods a moment later than their Deployment.
    eventually("they are reached", lambda: _is_reached(client, url), within_s=20)
    load = Load(url=url, model=NAME, ids="veteran", count=800, workers=4, tokens=2, gap_s=0.1)
    with sending(installed.tools, load) as told:
        time.sleep(2)
        began = time.monotonic()
        home.edit(NAME, paused=False)
        eventually("clients come through the gateway", lambda: _role(home) == names.ROLE_GATEWAY, within_s=40)
        measured.append(f"a service of 0.1.0 comes through its gateway after {time.monotonic() - began:.1f} s")

    assert told[0].count() == {"whole": 800}, told[0].others()[:5]
    ways = told[0].count("revision")
    assert set(ways) == {"None", _revision(service)}, ways  # at first from the engine itself, then through the gateway
    home.wait_until_settled(NAME)
    assert home.pod_lives(NAME) == lives
    assert "suggestion" in home.service(NAME)["status"]["plan"]  # the longer drain of this version is offered


def _is_reached(client: Client, url: str) -> bool:
    try:
        return client.ask(url, ("/v1/models", None))[0][0] == 200
    except RuntimeError:
        return False


def _role(home: Namespace) -> str:
    service = home.api.get(SERVICES, HOME, NAME)
    assert service is not None
    return str(service["spec"]["selector"][names.LABEL_ROLE])


def _engine(home: Namespace) -> str:
    return names.engine_name(NAME, _revision(home.service(NAME)))


def _revision(service: Json) -> str:
    return names.short_hash(_pod_affecting(service))


def _pod_affecting(service: Json) -> Json:
    return InferenceServiceSpec.model_validate(service["spec"]).pod_affecting()


def _as_0_1_0_made_them(service: Json) -> list[Json]:
    """The recorded children, for this service: its names, image, model and owner, and nothing else, are put in."""
    recorded: list[Json] = list(yaml.safe_load_all((RECORDED / "children.yaml").read_text()))
    [pin] = [item for item in recorded if item["kind"] == "ControllerRevision"]
    was = {
        "name": pin["metadata"]["labels"][names.LABEL_SERVICE],
        "namespace": pin["metadata"]["namespace"],
        "revision": pin["metadata"]["labels"][names.LABEL_REVISION],
        "image": pin["data"]["plan"]["image"],
    }
    spec = service["spec"]
    container = pin["data"]["podTemplate"]["spec"]["containers"][0]
    model = container["args"][container["args"].index("--model") + 1]
    claim = next(v for v in pin["data"]["podTemplate"]["spec"]["volumes"] if "persistentVolumeClaim" in v)
    whole = {
        was["image"]: spec["engine"]["image"],
        was["revision"]: _revision(service),
        was["namespace"]: HOME,
        model: "/models/tiny.gguf",
        claim["persistentVolumeClaim"]["claimName"]: "tiny-model",
        pin["metadata"]["ownerReferences"][0]["uid"]: service["metadata"]["uid"],
    }

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [moved(item) for item in value]
        if not isinstance(value, str):
            return value
        if value in whole:
            return whole[value]
        if value == was["name"] or value.startswith(f"{was['name']}-"):
            return value.replace(was["name"], NAME, 1).replace(was["revision"], whole[was["revision"]])
        return value

    children = [moved(deepcopy(item)) for item in recorded]
    resources = spec["engine"]["resources"]  # the recorded ones do not fit on a small node
    for child in children:
        if child["kind"] == "Deployment":
            child["spec"]["replicas"] = spec["replicas"]
            child["spec"]["template"]["spec"]["containers"][0]["resources"] = resources
        if child["kind"] == "ControllerRevision":
            child["data"]["spec"] = _pod_affecting(service)
            child["data"]["podTemplate"]["spec"]["containers"][0]["resources"] = resources
    return children
