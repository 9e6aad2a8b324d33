"""llama.cpp's `llama-server`: GGUF models on CPU, or on GPUs in one process.

Traps that this file exists for:
- `--ctx-size` is the sum over all slots: with `--parallel K` each request gets a K-th of it. Both are always written,
  the sum as context x slots.
- Values left out are shrunk to fit the memory without a word (`--fit`), so the context is always written and fitting
  is off: too little memory is then an error at start and not a shorter context.
- The bare program listens on localhost, and its metrics are off.
- HTTP is up before the model is loaded and answers 503 meanwhile: liveness may ask only after the start-up probe.
- SIGTERM cuts running requests: before it comes, the pod waits until none is left. The kubelet cannot be told to cut
  such a wait short (seen with 1.35), so the pod itself must see when it is idle.
- Threads default to the cores of the node, not of the container.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.api.model_uri import ClaimModel, HubModel, ImageModel, ModelSource, UrlModel
from draftmark.engines.argument_list import pairs_in
from draftmark.engines.engine import (
    Asked,
    Choice,
    CpuCache,
    CpuMemoryUse,
    Launch,
    LaunchRequest,
    MemoryUse,
    Misfit,
    Probe,
    Step,
    Suit,
    Wanted,
)
from draftmark.engines.flag_table import FlagTable, check_args
from draftmark.engines.splitting import is_gguf, refuse_pipeline
from draftmark.engines.start_budget import start_budget_s
from draftmark.facts.model_memory import KV_DTYPE_BYTES
from draftmark.facts.models import ModelFacts
from draftmark.measure.order import Counters, EngineSign
from draftmark.plan import Layout, ModelKind, Unplannable

PORT: Final = 8080
MODEL_FOLDER: Final = "/models"
#: File of an image when the URI names none.
DEFAULT_IMAGE_PATH: Final = "model.gguf"
CACHE_FOLDER: Final = "/cache"

_NO_TOOLS: Final = "nothing: it would let whoever reaches the port run commands in the pod"

#: Flags that follow from fields of the InferenceService, and the field to use instead.
RESERVED: Final = {
    "--host": "the operator (the pod's address)",
    "--port": "the operator (the Service's target)",
    "--model": "model.uri",
    "--model-url": "model.uri",
    "--hf-repo": "model.uri",
    "--hf-file": "model.uri",
    "--hf-token": "model.authSecretRef",
    "--alias": "model.name",
    "--ctx-size": "model.maxContextLength",
    "--parallel": "workload.concurrency",
    "--n-gpu-layers": "accelerator",
    "--metrics": "the operator (always on)",
    "--api-key": "nothing yet: keys belong to the gateway, and the probes and metrics of the pod need none",
    "--api-key-file": "nothing yet: keys belong to the gateway, and the probes and metrics of the pod need none",
    "--cache-prompt": "engine.options.prefixCaching",
    "--cache-type-k": "engine.options.kvCacheDType",
    "--cache-type-v": "engine.options.kvCacheDType",
    "--threads": "engine.resources.limits.cpu",
    "--models-dir": "model.uri (one model is served here)",
    "--fit": "the operator (off: the context must not shrink silently)",
    "--ssl-key-file": "nothing: the probes and the Service speak plain HTTP",
    "--ssl-cert-file": "nothing: the probes and the Service speak plain HTTP",
    "--api-prefix": "nothing: clients, probes and metrics use the paths as they are",
    "--tools": _NO_TOOLS,
    "--tools-runtime": _NO_TOOLS,
    "--agent": _NO_TOOLS,
    "--mcp-servers-config": _NO_TOOLS,
    "--mcp-servers-json": _NO_TOOLS,
    "--ui-mcp-proxy": _NO_TOOLS,
    "--docker-repo": "model.uri",
    "--models-preset": "model.uri (one model is served here)",
    "--models-max": "model.uri (one model is served here)",
    "--models-autoload": "model.uri (one model is served here)",
    "--path": "nothing: files of the container are not served",
    "--media-path": "nothing: files of the container are not served",
    "--slot-save-path": "nothing: the root file system is read-only",
    "--log-file": "nothing: logs go to the container's output",
    "--props": "nothing: settings change by a new revision only",
    "--sleep-idle-seconds": "replicas",
}

#: Seconds to start apart from reading the model; a guess on the slow side, no measurement.
START_BASE_S: Final = 120
#: Seconds between two start-up probes: a small model is up in one, and nobody waits for the next probe gladly.
_START_PERIOD_S: Final = 2

#: Seconds from SIGTERM to SIGKILL. It has nothing to finish by then.
STOP_S: Final = 30


#: Free memory that stays per GPU: llama.cpp's own margin where it fits a model by itself (--fit).
_MARGIN_BYTES: Final = 2**30
#: Buffers of a step. A guess inside what was seen, 0.3 to 2 GiB.
_COMPUTE_BYTES: Final = 2**30
#: On CPU: the process without weights, cache and buffers. A guess above what was seen: 25.5 MiB with a model of 1.6 MiB
#: (tests/e2e/test_estimates.py).
CPU_PROCESS_BYTES: Final = 64 * 2**20
#: Tokens of a step unless --ubatch-size says otherwise. Source: `llama-server --help` of v0.7.0.
_UBATCH: Final = 512
#: MiB in which prompts of earlier requests are kept besides the cache, unless --cache-ram says otherwise: each slot that
#: takes another prompt leaves a copy of its cache there. Sources: the same; ollama/ollama#18264 and defilantech/LLMKube#1406
#: (containers that grew by 8 GiB, and were killed for it).
_PROMPT_CACHE_MIB: Final = 8192


#: Prompt tokens without those that came from a cache, as the help of its metric says. It tells neither the use of its
#: cache nor when it started. Source: `GET /metrics` of v0.7.0.
_COUNTERS: Final = Counters(
    running="llamacpp:requests_processing",
    waiting="llamacpp:requests_deferred",
    computed_prompt_tokens="llamacpp:prompt_tokens_total",
    output_tokens="llamacpp:tokens_predicted_total",
)


_SIGN: Final = EngineSign(engine="llama-cpp", owned_by="llamacpp", version_path="/props", version_field="build_info")


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """The `llama-cpp` engine."""

    name: str = "llama-cpp"
    default_version: str = "v0.7.0"
    #: llama-server's own number of slots when it is left to itself.
    default_concurrency: int = 4
    default_image_path: str | None = DEFAULT_IMAGE_PATH
    counters: Counters = _COUNTERS
    sign: EngineSign = _SIGN

    def default_image(self, version: str, resource_name: str | None) -> str | None:
        flavour = {None: "server", "nvidia.com/gpu": "server-cuda", "amd.com/gpu": "server-rocm"}.get(resource_name)
        return f"ghcr.io/ggml-org/llama.cpp:{flavour}-{version}" if flavour else None

    def model_kind(self, args: Sequence[str]) -> ModelKind:
        if {"--embedding", "--embeddings"} & set(args):
            return "embed"
        return "rerank" if {"--rerank", "--reranking"} & set(args) else "generate"

    def flag_table(self, version: str) -> FlagTable | None:
        return FlagTable.load(self.name, version)

    def choose_concurrency(self, spec: InferenceServiceSpec, layout: Layout) -> Choice:
        return Choice(
            value=self.default_concurrency,
            why=f"{self.default_concurrency} requests at once per replica, {self.name}'s own default, because "
            "workload.concurrency is not set",
        )

    def choose_batched_tokens(self, spec: InferenceServiceSpec, layout: Layout, *, least: int) -> Choice | None:
        return None

    def suits(self, asked: Asked) -> Suit | Misfit:
        if is_gguf(asked.source):
            return Suit(rank=9, why="the model is a GGUF file, which llama.cpp serves on any hardware")
        return Misfit(why="llama.cpp serves GGUF files only")

    def memory_use(self, gpu_bytes: int, facts: ModelFacts, step: Step, args: Sequence[str]) -> MemoryUse:
        return MemoryUse(usable_bytes=max(0, gpu_bytes - _MARGIN_BYTES), overhead_bytes=_COMPUTE_BYTES)

    def cpu_memory_use(self, spec: InferenceServiceSpec, facts: ModelFacts, step: Step) -> CpuMemoryUse | None:
        said = dict(pairs_in(spec.engine.args or ()))
        tokens = _number(said.get("--ubatch-size", said.get("-ub"))) or _UBATCH
        # 32 bit numbers: the logits of a step, or a feed-forward part, whichever is larger, beside what goes through. Of
        # Llama 3 8B llama.cpp prints 258.50 MiB on CPU, 512 · (vocabulary + hidden size); some more is counted.
        width = max(facts.vocab_size, 3 * max(facts.intermediate_size, facts.moe_intermediate_size))
        kept = _number(said.get("--cache-ram", said.get("-cram"))) or 0
        return CpuMemoryUse(
            overhead_bytes=CPU_PROCESS_BYTES + 4 * tokens * (width + 4 * facts.hidden_size),
            further_bytes=kept * 2**20,
        )

    def cpu_cache(self, spec: InferenceServiceSpec, *, needed: int, left: int | None, limit: int | None) -> CpuCache:
        if {"--cache-ram", "-cram"} & {name for name, _ in pairs_in(spec.engine.args or ())}:
            note = ""
        elif left is None:
            note = f"llama-server keeps prompts of earlier requests in up to {_PROMPT_CACHE_MIB // 1024} GiB besides (--cache-ram)"
        else:
            note = f"prompts of earlier requests are kept in what is left, {_prompt_cache_mib(left - needed)} MiB (--cache-ram)"
        return CpuCache(least_bytes=needed, taken_bytes=needed if left is None else left, note=note)

    def whole_contexts(self, requests: int) -> int:
        return requests  # --ctx-size is the sum of all slots

    def kv_dtype(self, facts: ModelFacts, option: str | None) -> str | None:
        return option if option is not None and option in KV_DTYPE_BYTES else "f16" if option is None else None

    def refuse_split(self, facts: ModelFacts, *, tensor: int, pipeline: int, expert: bool = False) -> str | None:
        if expert:
            return "llama.cpp gives each GPU whole layers, with all of their experts"
        if tensor > 1:
            return "llama.cpp gives each GPU whole layers, so that tensor is 1"
        return refuse_pipeline(facts, pipeline)

    def refuse(self, wanted: Wanted) -> Unplannable | None:
        table = wanted.table
        path = _path(wanted.source)
        if path is not None and not path.endswith(".gguf"):
            return Unplannable(
                code="UnsupportedModelFormat",
                message=f"llama-cpp serves GGUF files; '{path}' does not end in .gguf. Name the file of the "
                "model, for a split model its first part.",
            )
        if taken := sorted(name for name in wanted.env_names if _is_flag(name, table)):
            return Unplannable(
                code="InvalidEnv",
                message=f"engine.env sets {', '.join(taken[:5])}, which llama-server reads as arguments, past every "
                "check. Use engine.args or the field of the InferenceService instead.",
            )
        if table is not None and (problems := check_args(table, wanted.args, RESERVED)):
            return Unplannable(code="InvalidArgs", message=" ".join(p.message for p in problems))
        return None

    def launch(self, request: LaunchRequest) -> Launch:
        plan = request.plan
        model_args, env, volumes, mounts = _model(request)
        args = [
            "--host", "0.0.0.0",
            "--port", str(PORT),
            "--alias", plan.served_name,
            *model_args,
            "--ctx-size", str(plan.max_context_length * plan.concurrency),
            "--parallel", str(plan.concurrency),
            "--fit", "off",
            "--metrics",
        ]  # fmt: skip
        if plan.layout.gpus:
            args += ["--n-gpu-layers", "all"]
        elif plan.memory is not None and not {"--cache-ram", "-cram"} & {name for name, _ in pairs_in(request.args)}:
            spare = plan.memory.usable_bytes - plan.memory.needed_bytes
            args += ["--cache-ram", str(_prompt_cache_mib(spare))]
        if request.cpu_cores is not None:
            args += ["--threads", str(request.cpu_cores)]
        if request.options.prefix_caching is not None:
            args += ["--cache-prompt" if request.options.prefix_caching else "--no-cache-prompt"]
        if (dtype := request.options.kv_cache_dtype) is not None:
            # Every type but the 16 and 32 bit ones needs flash attention for the values.
            args += ["--cache-type-k", dtype, "--cache-type-v", dtype]
            args += ["--flash-attn", "on"] if dtype not in {"f32", "f16", "bf16"} else []
        budget = start_budget_s(request.source, request.max_model_bytes, base_s=START_BASE_S)
        return Launch(
            args=(*args, *request.args),
            port=PORT,
            env=tuple(env),
            volumes=tuple(volumes),
            mounts=tuple(mounts),
            startup=Probe(
                path="/health",
                period_s=_START_PERIOD_S,
                timeout_s=5,
                failure_threshold=ceil(budget / _START_PERIOD_S),
            ),
            # A burst on a cold engine must not take it out of the endpoints: long time-out, several failures.
            readiness=Probe(path="/health", period_s=5, timeout_s=5, failure_threshold=6),
            liveness=Probe(path="/health", period_s=10, timeout_s=10, failure_threshold=6),
            pre_stop=_pre_stop(request),
            grace_s=request.request_timeout_s + STOP_S,
            metrics_path="/metrics",
        )


def _prompt_cache_mib(spare_bytes: int) -> int:
    """MiB for prompts of earlier requests: what is left of the container's memory, at most llama-server's own default."""
    return min(_PROMPT_CACHE_MIB, max(0, spare_bytes // 2**20))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 10 else None


#: Seconds in which routers and endpoints forget a pod that is going.
_FORGET_S: Final = 5

# Idle is: no request in a slot and none waiting for one, twice in a row; or still loading the model; or not yet listening.
# A server that does not answer in time may be busy, so it is waited for. Metrics: `GET /metrics` of v0.7.0 (build 11669).
_WAIT_UNTIL_IDLE: Final = r"""
sleep "$3"
end=$(($(date +%s) + $1 - $3))
idle=0
while [ "$idle" -lt 2 ] && [ "$(date +%s)" -lt "$end" ]; do
  code=$(curl -s -m 2 -o /dev/null -w "%{http_code}" "http://127.0.0.1:$2/health")
  if [ $? = 7 ] || [ "$code" = 503 ] ||
     [ "$(curl -s -m 2 "http://127.0.0.1:$2/metrics" | grep -Ec "^llamacpp:requests_(processing|deferred) 0$")" = 2 ]
  then idle=$((idle + 1)); else idle=0; fi
  sleep 1
done
"""


def _pre_stop(request: LaunchRequest) -> dict[str, Any]:
    """Wait until no request is left, at most as long as one may take.

    The images of llama.cpp hold a shell and curl. Another image may not, and a hook that cannot be started is skipped,
    with all requests cut: there the whole time is waited.
    """
    if request.is_own_image:
        return {"sleep": {"seconds": request.request_timeout_s}}
    numbers = [str(n) for n in (request.request_timeout_s, PORT, min(_FORGET_S, request.request_timeout_s))]
    return {"exec": {"command": ["sh", "-c", _WAIT_UNTIL_IDLE.strip(), "drain", *numbers]}}


def _path(source: ModelSource) -> str | None:
    """The file on a claim or in an image; None for what is downloaded."""
    match source:
        case ClaimModel(path=path):
            return path
        case ImageModel(path=path):
            return path or DEFAULT_IMAGE_PATH
        case _:
            return None


def _is_flag(name: str, table: FlagTable | None) -> bool:
    """Whether an environment variable is another spelling of a flag. The hub's token is one, and does no harm: it has
    no field of its own beside model.authSecretRef, and many charts set it so."""
    if name == "HF_TOKEN":
        return False
    by_table = table is not None and any(flag.environment == name for flag in table.flags)
    return by_table or name.startswith("LLAMA_ARG_") or name == "LLAMA_API_KEY"


def _model(
    request: LaunchRequest,
) -> tuple[list[str], list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Arguments, environment, volumes and mounts that bring the model to the server."""
    mount = {"name": "draftmark-model", "mountPath": MODEL_FOLDER, "readOnly": True}
    match request.source:
        case ClaimModel(claim=claim, path=path):
            volume = {"name": "draftmark-model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            return ["--model", f"{MODEL_FOLDER}/{path}"], [], [volume], [mount]
        case ImageModel(reference=reference):
            path = _path(request.source) or ""
            volume = {"name": "draftmark-model", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}
            return ["--model", f"{MODEL_FOLDER}/{path}"], [], [volume], [mount]
        case UrlModel(url=url):
            args = ["--model-url", url]
        case HubModel(repository=repository, quantization=quantization, file=file):
            args = ["--hf-repo", repository + (f":{quantization}" if quantization else "")]
            args += ["--hf-file", file] if file else []
    # The download goes to a folder of the pod: the root file system is read-only, and HOME is where it looks first.
    env: list[dict[str, Any]] = [
        {"name": "HOME", "value": CACHE_FOLDER},
        {"name": "LLAMA_CACHE", "value": CACHE_FOLDER},
    ]
    if request.auth_secret is not None:
        name, key = request.auth_secret
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}})
    volume = {"name": "draftmark-cache", "emptyDir": {}}
    return args, env, [volume], [{"name": "draftmark-cache", "mountPath": CACHE_FOLDER}]
