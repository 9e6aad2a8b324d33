"""The way of a request: gateway, router, engine; what passes, what waits, what is refused, what a death costs."""

import json
import time
from typing import Any

import pytest

from draftmark.api import names
from draftmark.cluster.kinds import NETWORK_POLICIES, SERVICES
from e2e.cluster.choose import Own
from tests.e2e.api import Namespace, eventually, is_ready, restarts
from tests.e2e.flow import standin_service, times_seen
from tests.e2e.installed import HOME, Client, Installed, inference_service
from tests.e2e.load import Load, send, sending
from tests.e2e.processes import kill_all_nine

#: Seconds after which nothing may be felt of a killed gateway or router.
RECOVERY_S = 15


@pytest.fixture(scope="module")
def flow(home: Namespace, installed: Installed) -> Namespace:
    """Services of this file, applied together so that their starts are one wait."""
    home.apply(
        inference_service("vectors", engine={"args": ["--embedding", "--pooling", "mean"]}),
        inference_service("ranks", engine={"args": ["--reranking"]}),
        *(
            standin_service(
                installed,
                policy.lower(),
                behaviour={"FIRST_TOKEN_MS": 200, "TOKEN_MS": 100},
                replicas=2,
                workload={"concurrency": 16},
                traffic={"policy": policy},
            )
            for policy in ("roundRobin", "leastLoad", "sessionAffinity")
        ),
        standin_service(
            installed,
            "narrow",
            behaviour={"TOKEN_MS": 400, "FIRST_TOKEN_MS": 400},
            workload={"concurrency": 8},
            traffic={"maxConcurrent": 4, "maxQueue": 6, "queueTimeout": "3s"},
        ),
        standin_service(
            installed,
            "mortal",
            behaviour={"TOKEN_MS": 250, "FIRST_TOKEN_MS": 250},
            workload={"concurrency": 64},
            replicas=2,
        ),
    )
    return home


def test_completions_and_chats_are_answered_by_the_real_engine(home: Namespace, client: Client, good: str) -> None:
    url = home.service(good)["status"]["url"]
    chat = {"model": good, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    completion = {"model": good, "prompt": "Hello", "max_tokens": 4}

    answers = client.ask(url, ("/v1/chat/completions", chat), ("/v1/completions", completion), ("/v1/models", None))

    assert [status for status, _, _ in answers] == [200, 200, 200], answers
    assert json.loads(answers[0][2])["choices"][0]["message"]["role"] == "assistant"
    assert json.loads(answers[1][2])["usage"]["completion_tokens"] == 4
    assert [model["id"] for model in json.loads(answers[2][2])["data"]] == [good]


def test_a_model_of_embeddings_is_proven_and_answers(flow: Namespace, client: Client) -> None:
    url = flow.wait_until_ready("vectors")["status"]["url"]
    [(status, _, text)] = client.ask(url, ("/v1/embeddings", {"model": "vectors", "input": "Hello"}))
    assert status == 200
    assert len(json.loads(text)["data"][0]["embedding"]) > 8


def test_a_model_that_reranks_is_proven_and_answers(flow: Namespace, client: Client) -> None:
    url = flow.wait_until_ready("ranks")["status"]["url"]
    body = {"model": "ranks", "query": "Hello", "documents": ["Hello you", "what is it", "bye"]}
    [(status, _, text)] = client.ask(url, ("/v1/rerank", body))
    assert status == 200
    assert sorted(result["index"] for result in json.loads(text)["results"]) == [0, 1, 2]


def answered_by(flow: Namespace, installed: Installed, name: str, ids: str) -> list[int]:
    """How many requests each engine pod has answered whose id begins so."""
    told = [installed.api.to_pod(pod, 8080, "/standin/requests").json()["requests"] for pod in flow.pods(name)]
    return sorted(sum(request.startswith(f"{ids}-") for request in requests) for requests in told)


def test_each_policy_chooses_as_it_says(flow: Namespace, installed: Installed, client: Client) -> None:
    for name in ("roundrobin", "leastload", "sessionaffinity"):
        flow.wait_until_settled(name)

    def send_to(name: str, ids: str, workers: int, *, tokens: int = 1, session: str = "") -> list[int]:
        url = flow.service(name)["status"]["url"]
        headers = {"x-smg-routing-key": session} if session else {}
        told = send(
            installed.tools,
            Load(url=url, model=name, ids=ids, count=12, workers=workers, tokens=tokens, headers=headers),
        )
        assert told.count() == {"whole": 12}, told.others()[:5]
        return answered_by(flow, installed, name, ids)

    assert send_to("roundrobin", "turns", 1) == [6, 6]
    # All at once, and for so long that all of them are under way together: each goes to the pod that has fewer of them.
    assert send_to("leastload", "least", 12, tokens=20) == [6, 6]
    sessions = [send_to("sessionaffinity", f"session{n}", 1, session=f"user-{n}") for n in range(8)]
    assert sessions == [[0, 12]] * 8


@pytest.mark.parametrize(
    "path",
    [
        "/workers", "/v1/load_lora_adapter", "/lora-adapters", "/sleep", "/api/pull", "/flush_cache", "/metrics", "/slots",
        "/props", "/get_loads", "/health", "//workers", "/v1/../workers", "/v1/chat/completions/../../workers", "/%77orkers",
    ],
)  # fmt: skip
def test_other_paths_are_not_found(home: Namespace, client: Client, good: str, path: str) -> None:
    url = home.service(good)["status"]["url"]
    for status, kind, text in client.ask(url, (path, {}), (path, None)):
        assert (status, kind) == (404, "application/json"), text
        assert json.loads(text)["error"]["type"] == "invalid_request_error"


def test_the_service_offers_nothing_but_requests(home: Namespace, good: str) -> None:
    service = home.api.get(SERVICES, HOME, good)
    assert service is not None
    assert [(p["port"], p["targetPort"]) for p in service["spec"]["ports"]] == [(80, "http")]
    assert service["spec"]["selector"][names.LABEL_ROLE] == names.ROLE_GATEWAY


def test_each_part_of_the_chain_has_a_policy(home: Namespace, installed: Installed, good: str) -> None:
    policies = {name: item for (kind, name), item in home.children(good).items() if kind == NETWORK_POLICIES}
    assert sorted(policies) == [f"{good}-{role}" for role in ("engine", "gateway", "router")]
    for name, policy in policies.items():
        selector = policy["spec"]["podSelector"]["matchLabels"]
        assert list(home.pods(good, selector[names.LABEL_ROLE])), name


def test_beyond_the_limits_requests_wait_and_are_refused(flow: Namespace, installed: Installed, client: Client) -> None:
    url = flow.wait_until_settled("narrow")["status"]["url"]
    # 4 run for 4 s, 6 wait and are told so after 3 s, 10 find the queue full.
    told = send(installed.tools, Load(url=url, model="narrow", ids="narrow", count=20, workers=20, tokens=10))

    assert told.count() == {"whole": 4, "503": 6, "429": 10}
    for answer in told.others():
        assert int(answer["retry_after"]) > 0
        error = json.loads(answer["body"])["error"]
        assert error["message"]
        assert error["type"] == {"429": "rate_limit_error", "503": "server_error"}[answer["outcome"]]
    refused = [a["took"] for a in told.others() if a["outcome"] == "429"]
    assert max(refused) < 1
    seen = times_seen(flow, "narrow")
    assert {i: seen[i] for i in told.whole} == dict.fromkeys(told.whole, 1)
    assert not [a["id"] for a in told.others() if seen[a["id"]]]


def test_a_killed_router_or_gateway_cuts_only_what_went_through_it(
    flow: Namespace, installed: Installed, client: Client, measured: list[str]
) -> None:
    if not isinstance(installed.target, Own):
        pytest.skip("the process is only in reach on a node that we made")
    url = flow.wait_until_settled("mortal")["status"]["url"]
    [router] = flow.pods("mortal", names.ROLE_ROUTER)
    gateways = flow.pods("mortal", names.ROLE_GATEWAY)
    assert len(gateways) == 2
    # Streams of 3 s, without end for 60 s.
    load = Load(
        url=url, model="mortal", ids=f"mortal{int(time.time())}", count=440, workers=24, tokens=12, pause_s=0.05,
        retry_s=RECOVERY_S,
    )  # fmt: skip
    with sending(installed.tools, load) as told:
        time.sleep(8)
        deaths = [_kill(flow, "mortal", router)]
        time.sleep(RECOVERY_S + 5)
        deaths.append(_kill(flow, "mortal", gateways[0]))

    answers = told[0].answers
    outcomes = told[0].count()
    measured.append(f"router, then one of two gateways killed under 24 streams: {outcomes}")
    # 502: the router had the request, and died before it answered; whether the engine has seen it nobody knows.
    assert set(outcomes) <= {"whole", "cut", "error", "502", "503"}, told[0].others()[:5]
    for answer in told[0].others():
        if answer["outcome"] == "503":
            assert int(answer["retry_after"]) > 0
        if answer["outcome"] == "502":
            assert json.loads(answer["body"])["error"]["code"] == "router_failed"
            assert answer["at"] < deaths[0] + RECOVERY_S, answer  # of the router's death, and not of the gateway's
        # Cut was only what was on its way, and nothing that began after the recovery.
        assert any(death - 10 <= answer["at"] <= death + RECOVERY_S for death in deaths), answer
    cut_by_gateway = [a for a in told[0].others() if a["outcome"] in ("cut", "error") and a["at"] > deaths[1] - 10]
    assert 0 < len(cut_by_gateway) < 24  # the other gateway's streams went on
    seen = times_seen(flow, "mortal")
    assert [i for i, count in seen.items() if count > 1] == []
    assert {a["id"] for a in answers if a["outcome"] == "whole"} <= set(seen)


def _kill(namespace: Namespace, name: str, pod: Any) -> float:
    """Kill all of a pod, wait until it was started again, and return when it died."""
    role = pod["metadata"]["labels"][names.LABEL_ROLE]
    before = restarts(pod)
    died = time.time()
    kill_all_nine(pod)

    def is_back() -> bool:
        [again] = [p for p in namespace.pods(name, role) if p["metadata"]["uid"] == pod["metadata"]["uid"]]
        return restarts(again) > before and is_ready(again)

    eventually(f"the killed {role} is back", is_back, within_s=RECOVERY_S)
    return died
