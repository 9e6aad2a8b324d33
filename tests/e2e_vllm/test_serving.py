"""From an applied object to answers of real vLLM, through gateway and router."""

import json
import re
from pathlib import Path

from draftmark.api import names
from draftmark.benchmark_runner.engine_metrics import values_of
from draftmark.engines.registry import ENGINES
from draftmark.facts.hf_config import facts_from_config
from draftmark.facts.model_memory import kv_bytes_per_token
from draftmark.facts.models import ModelFacts
from e2e import tiny_llama
from tests.e2e.api import Json, Namespace
from tests.e2e.installed import Client, Installed
from tests.e2e.load import Load, send
from tests.e2e_vllm.conftest import PLAIN, VERSION

PORT = 8000
#: What dashboards, alerts and queries for autoscaling ask vLLM for, as Prometheus sees it.
METRICS = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:request_time_per_output_token_seconds_bucket",
    "vllm:e2e_request_latency_seconds_bucket",
    "vllm:request_queue_time_seconds_bucket",
    "vllm:request_prefill_time_seconds_bucket",
    "vllm:request_decode_time_seconds_bucket",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:request_success_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:num_preemptions_total",
    "vllm:cache_config_info",
)
#: Names only: between the parts of an object a model of random weights writes spaces without end.
SCHEMA = {"enum": ["red", "green"]}


def chat(content: str = "Hello", **more: object) -> tuple[str, Json]:
    message = {"role": "user", "content": content}
    return "/v1/chat/completions", {"model": PLAIN, "messages": [message], "max_tokens": 8, "temperature": 0, **more}


def test_the_service_is_ready_behind_its_gateway_and_router(plain: Namespace) -> None:
    assert [len(plain.pods(PLAIN, role)) for role in (names.ROLE_GATEWAY, names.ROLE_ROUTER)] == [1, 1]
    assert "ArgsUnchecked" not in plain.conditions(PLAIN)


def test_chats_and_completions_are_answered(plain: Namespace, client: Client) -> None:
    url = plain.service(PLAIN)["status"]["url"]
    completion = ("/v1/completions", {"model": PLAIN, "prompt": "Hello", "max_tokens": 8})

    answers = client.ask(url, chat(), completion, ("/v1/models", None))

    assert [status for status, _, _ in answers] == [200, 200, 200], answers
    first, second, models = (json.loads(text) for _, _, text in answers)
    assert (first["model"], first["usage"]["completion_tokens"]) == (PLAIN, 8)
    assert first["choices"][0]["message"]["content"]
    assert second["usage"]["completion_tokens"] == 8
    assert [model["id"] for model in models["data"]] == [PLAIN]


def test_streams_arrive_in_parts(plain: Namespace, installed: Installed, client: Client, measured: list[str]) -> None:
    url = plain.service(PLAIN)["status"]["url"]
    load = Load(url=url, model=PLAIN, ids="stream", count=8, workers=4, tokens=200, is_noise=True)
    told = send(installed.tools, load)
    assert told.count() == {"whole": 8}, told.others()
    assert min(answer["tokens"] for answer in told.answers) > 100
    took = sum(answer["took"] for answer in told.answers)
    measured.append(f"4 streams at once of 200 tokens of the tiny model: {4 * 8 * 200 / took:.0f} tokens/s in all")


def test_an_answer_keeps_to_the_schema_that_is_demanded(plain: Namespace, client: Client) -> None:
    url = plain.service(PLAIN)["status"]["url"]
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
    [(status, _, text)] = client.ask(url, chat("Which?", response_format=wanted, max_tokens=40))
    assert status == 200, text
    assert json.loads(json.loads(text)["choices"][0]["message"]["content"]) in SCHEMA["enum"]


def test_the_metrics_have_the_names_that_queries_use(plain: Namespace, installed: Installed, client: Client) -> None:
    client.ask(plain.service(PLAIN)["status"]["url"], chat())
    (pod,) = plain.pods(PLAIN)
    annotations = pod["metadata"]["annotations"]
    text = installed.api.to_pod(pod, int(annotations["prometheus.io/port"]), annotations["prometheus.io/path"]).text
    found = {match[1] for match in re.finditer(r"^([a-z0-9_:]+)\{", text, re.MULTILINE)}
    assert [name for name in METRICS if name not in found] == []
    assert f'model_name="{PLAIN}"' in text
    counters = ENGINES["vllm"].counters.model_dump(exclude_none=True)
    assert values_of(text, counters).keys() == counters.keys()


def test_it_says_that_it_is_vllm_and_of_which_version(plain: Namespace, installed: Installed) -> None:
    """By this a Benchmark knows it where it is a target by url."""
    sign = ENGINES["vllm"].sign
    (pod,) = plain.pods(PLAIN)
    models, version = (installed.api.to_pod(pod, PORT, path) for path in ("/v1/models", sign.version_path))
    assert [model["owned_by"] for model in models.json()["data"]] == [sign.owned_by]
    assert version.json()[sign.version_field].startswith(VERSION), version.text


def test_the_cache_has_as_many_bytes_per_token_as_the_planner_counts(
    plain: Namespace, installed: Installed, tmp_path: Path, measured: list[str]
) -> None:
    config = json.loads((tiny_llama.write(tmp_path / "model") / "config.json").read_text("utf-8"))
    facts = facts_from_config(config)
    assert isinstance(facts, ModelFacts)
    counted = kv_bytes_per_token(facts, "bfloat16")
    (pod,) = plain.pods(PLAIN)
    annotations = pod["metadata"]["annotations"]
    text = installed.api.to_pod(pod, int(annotations["prometheus.io/port"]), annotations["prometheus.io/path"]).text
    [labels] = re.findall(r"^vllm:cache_config_info\{(.*)\}", text, re.MULTILINE)
    told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
    blocks = next(int(told[name]) for name in ("num_gpu_blocks", "num_cpu_blocks") if told.get(name, "None").isdigit())
    tokens = blocks * int(told["block_size"])
    env = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    space = int(env["VLLM_CPU_KVCACHE_SPACE"]) * 2**30
    measured.append(
        f"vLLM's cache: {space} bytes for {tokens} tokens, {space / tokens:.2f} each; the planner counts {counted}"
    )
    # The last block may be cut off.
    assert counted <= space / tokens < counted * (1 + int(told["block_size"]) / tokens) + 1


def test_nothing_that_the_engine_writes_is_refused(plain: Namespace) -> None:
    """It has a read-only root file system and a user whom the image does not know."""
    (pod,) = plain.pods(PLAIN)
    name = pod["metadata"]["name"]
    user = plain.tools.kubectl(
        "exec", name, f"--namespace={plain.name}", "--", "sh", "-c", "id -u; touch /x || echo no"
    )
    assert user.split() == ["65532", "no"]
    log = plain.tools.kubectl("logs", name, f"--namespace={plain.name}", "--tail=-1")
    assert re.findall(r".*(?:Permission denied|Read-only file system|getpwuid|No space left).*", log) == []
    assert re.findall(r'.*"GET /(?:health|metrics).*', log) == [], "probes and scrapes fill the log"
