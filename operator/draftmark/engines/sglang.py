"""SGLang's `sglang serve`: models of safetensors, on the GPUs of one pod or on CPU.

Facts without another source were read in the Python package sglang 0.5.23; no SGLang was run.

Traps that this file exists for:
- The server listens on localhost, and its metrics are off; both flags are always written.
- The image starts a shell. `sglang serve` first asks the hub whether the model draws pictures, unless the kind of
  model is said, and that one flag is none of the parser's own.
- `/health` generates a token, takes a second at least, and fails when nothing came back for 20 s. A variable makes it
  what routers and probes expect; `/health_generate` still finds an engine that hangs, and only liveness asks that.
- SIGTERM waits without an end until no request is left, and refuses none meanwhile. The pod waits before SIGTERM until
  routers forgot it, and SIGKILL is the end of the drain.
- After the model is loaded a request is made to warm up; the server ends when that takes more than 600 s.
- The share of the GPU for weights and KV cache follows from the tokens of a step: 1.5 MiB are set aside for each. So
  neither is chosen here without need; SGLang takes 2,048 to 16,384 tokens by the GPU's memory.
- Chunked prefill alone reads a prompt to its end before others get their next token.
- A colon in a model's name stands before an adapter's: `MODEL:ADAPTER` is the only name that reaches an adapter. A
  request for the adapter's bare name is answered by the model without it, with 200.
- The KV cache that leaves the GPU is counted for each GPU and in whole GB, and the start fails unless 10 GiB of the
  container's memory stay free beside it.
- No argument tells that a model reranks. One that compares pairs (a cross-encoder) is started like one that embeds, and answers
  the request that proves a revision with an error, so such a service does not become ready.
- argparse takes the beginning of a flag for the flag; unlike vLLM's, it takes no dotted keys and no underscores.
- A Service called `sglang` would set SGLANG_PORT; pods of this operator get no such variables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, Final

from draftmark.api.inference_service import InferenceServiceSpec, SpeculativeSpec
from draftmark.api.model_uri import parse_model_uri
from draftmark.engines import refusals
from draftmark.engines.argument_list import compact_json, pairs_in, without
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
from draftmark.engines.flag_table import FlagTable, names_in
from draftmark.engines.pod_space import CACHE_FOLDER, PodSpace, home, hub_token
from draftmark.engines.splitting import is_gguf, refuse_experts, refuse_pipeline, refuse_tensor
from draftmark.engines.start_budget import start_budget_s
from draftmark.facts.model_memory import KV_DTYPE_BYTES
from draftmark.facts.models import ModelFacts
from draftmark.measure.order import Counters, EngineSign
from draftmark.plan import Layout, ModelKind, Unplannable

PORT: Final = 30000

_ONE_POD: Final = "nothing yet: a replica is one pod, and its GPUs are those of parallelism.tensor"
_KEYS: Final = "nothing yet: keys belong to the gateway, and the probes and metrics of the pod need none"
_PLAIN_HTTP: Final = "nothing: the probes and the Service speak plain HTTP/1.1"
_FOREIGN_CODE: Final = "nothing: it would run code in the pod that is not the engine's"
_ONE_KV_CACHE: Final = "nothing yet: a pod shares its KV cache with no other"
_ONE_ROLE: Final = "nothing yet: a pod reads prompts and generates"
_OFFLOAD: Final = "engine.options.kvOffload"
_SPECULATIVE: Final = "engine.options.speculative"

#: Flags that follow from fields of the InferenceService, and the field to use instead.
RESERVED: Final[Mapping[str, str]] = {
    "--host": "the operator (the pod's address)",
    "--port": "the operator (the Service's target)",
    "--model-type": "nothing: models of language are served",
    "--model-path": "model.uri",
    "--served-model-name": "model.name",
    "--revision": "model.revision",
    "--download-dir": "the operator (the pod's own folder)",
    "--delete-ckpt-after-loading": "nothing: the model's folder is not the pod's to empty",
    "--quantization": "model.quantization",
    "--context-length": "model.maxContextLength",
    "--max-running-requests": "workload.concurrency",
    "--device": "accelerator",
    "--tp-size": "parallelism.tensor",
    "--ep-size": "parallelism.expert",
    "--disable-radix-cache": "engine.options.prefixCaching",
    "--kv-cache-dtype": "engine.options.kvCacheDType",
    "--enable-hierarchical-cache": _OFFLOAD,
    "--hicache-size": _OFFLOAD,
    "--hicache-ratio": _OFFLOAD,
    "--hicache-host-memory-fraction": _OFFLOAD,
    "--hicache-host-memory-mode": _OFFLOAD,
    "--hicache-storage-backend": _ONE_KV_CACHE,
    "--hicache-storage-backend-extra-config": _FOREIGN_CODE,
    "--enable-lmcache": _ONE_KV_CACHE,
    "--lmcache-config-file": _ONE_KV_CACHE,
    "--enable-flexkv": _ONE_KV_CACHE,
    "--flexkv-config-file": _ONE_KV_CACHE,
    "--enable-unified-cache-external-linker": _ONE_KV_CACHE,
    "--unified-cache-external-linker-config": _FOREIGN_CODE,
    "--speculative-algorithm": _SPECULATIVE,
    "--speculative-draft-model-path": _SPECULATIVE,
    "--speculative-draft-model-revision": _SPECULATIVE,
    "--speculative-num-steps": _SPECULATIVE,
    "--speculative-eagle-topk": _SPECULATIVE,
    "--speculative-num-draft-tokens": _SPECULATIVE,
    "--speculative-ngram-max-bfs-breadth": _SPECULATIVE,
    "--grammar-backend": "engine.options.structuredOutput",
    "--tokenizer-worker-num": "engine.options.apiServerCount",
    "--enable-lora": "model.adapters",
    "--lora-paths": "model.adapters",
    "--max-lora-rank": "model.adapters (their files say it)",
    "--lora-target-modules": "model.adapters (their files say it)",
    "--enable-metrics": "the operator (always on)",
    "--enable-metrics-for-all-schedulers": "the operator (off: each GPU would tell the same requests again)",
    "--skip-server-warmup": "the operator (a pod is ready when it has answered)",
    "--gated-launch-port": "nothing: the pod would wait for somebody who lets it start",
    "--checkpoint-engine-wait-weights-before-ready": "nothing: the weights are those of model.uri",
    "--api-key": _KEYS,
    "--admin-api-key": _KEYS,
    "--ssl-keyfile": _PLAIN_HTTP,
    "--ssl-certfile": _PLAIN_HTTP,
    "--ssl-ca-certs": _PLAIN_HTTP,
    "--ssl-keyfile-password": _PLAIN_HTTP,
    "--enable-ssl-refresh": _PLAIN_HTTP,
    "--enable-http2": _PLAIN_HTTP,
    "--grpc-mode": _PLAIN_HTTP,
    "--smg-grpc-mode": _PLAIN_HTTP,
    "--grpc-port": _PLAIN_HTTP,
    "--smg-http-sidecar-port": _PLAIN_HTTP,
    "--fastapi-root-path": "nothing: clients, probes and metrics use the paths as they are",
    "--config": "nothing: a file would bring flags that nobody has checked",
    "--trust-remote-code": "nothing: it would run code of the model's repository in the pod",
    "--enable-custom-logit-processor": "nothing: it would run code that requests bring",
    "--trust-request-chat-template": "nothing: it would run templates that requests bring",
    "--custom-weight-loader": _FOREIGN_CODE,
    "--forward-hooks": _FOREIGN_CODE,
    "--sidecar": _FOREIGN_CODE,
    "--sidecar-args": _FOREIGN_CODE,
    "--tool-server": "nothing: it would let requests run tools in the pod's name",
    "--pp-size": _ONE_POD,
    "--dp-size": _ONE_POD,
    "--nnodes": _ONE_POD,
    "--node-rank": _ONE_POD,
    "--dist-init-addr": _ONE_POD,
    "--use-ray": _ONE_POD,
    "--elastic-ep-backend": _ONE_POD,
    "--elastic-ep-join-mode": _ONE_POD,
    "--disaggregation-mode": _ONE_ROLE,
    "--disaggregation-bootstrap-port": _ONE_ROLE,
    "--disaggregation-transfer-backend": _ONE_ROLE,
    "--enable-pd-role-switch": _ONE_ROLE,
    "--encoder-only": _ONE_ROLE,
    "--language-only": _ONE_ROLE,
    "--encoder-urls": _ONE_ROLE,
    "--decoupled-spec-role": _ONE_ROLE,
}

#: Variables that do what a flag does which is not the user's, past the check of arguments; and the field to use instead.
#: Source: sglang/srt/environ.py, entrypoints/http_server.py, managers/tokenizer_manager.py; PROMETHEUS_MULTIPROC_DIR is
#: the Prometheus client's.
REFUSED_ENV: Final[Mapping[str, str]] = {
    "SGLANG_PORT": "the operator (it is the first port between processes, and a Service called sglang would set it)",
    "SGLANG_GRPC_PORT": _PLAIN_HTTP,
    "SGLANG_RUST_SERVER": "nothing: it is another server, whose flags and metrics were not looked at",
    "SGLANG_HTTP_SERVER_APP_PATH": _FOREIGN_CODE,
    "SGLANG_EXTERNAL_MODEL_PACKAGE": _FOREIGN_CODE,
    "SGLANG_EXTERNAL_MM_PROCESSOR_PACKAGE": _FOREIGN_CODE,
    "SGLANG_PLUGINS": _FOREIGN_CODE,
    "SGLANG_PLATFORM": _FOREIGN_CODE,
    "SGLANG_USE_MODELSCOPE": "model.uri (hf:// is the Hugging Face hub)",
    "SGLANG_USE_CPU_ENGINE": "accelerator",
    "SGLANG_WARMUP_TIMEOUT": "the operator (as long as the start-up probe waits)",
    "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "the operator (liveness alone asks for a token)",
    "SGLANG_DIAG_BYPASS_HEALTH_GENERATE": "the operator (an engine that hangs must be found)",
    "SGLANG_HEALTH_CHECK_TIMEOUT": "the operator (shorter than the liveness probe waits)",
    "SGLANG_FORCE_SHUTDOWN": "the operator (requests end before the pod does)",
    "SGL_FORCE_SHUTDOWN": "the operator (requests end before the pod does)",
    "EXA_API_KEY": "nothing: it would let requests run tools in the pod's name",
    "PROMETHEUS_MULTIPROC_DIR": "the engine (a folder that held files before would count them)",
}

#: Flags that are ours unless the user writes them: no field sets them.
OVERRIDABLE: Final = (
    "--uvicorn-access-log-exclude-prefixes",
    "--chunked-prefill-size",
    "--max-prefill-tokens",
    "--prefill-decode-interval",
    "--max-loras-per-batch",
    "--max-total-tokens",
)

#: Requests at once by kind of workload. SGLang captures graphs for 256 requests on GPUs of 60 to 160 GiB and for 512
#: above that (arg_groups/memory_hook.py, handle_gpu_memory_settings); larger batches than those run without a graph.
#: 64 is a guess.
_REQUESTS: Final[Mapping[str, int]] = {"chat": 256, "batch": 512, "interactive": 64}
_WHY_REQUESTS: Final[Mapping[str, str]] = {
    "chat": "as many as SGLang captures graphs for on GPUs of 60 to 160 GiB",
    "batch": "many at once bring the most tokens per second",
    "interactive": "few, because every further one makes the tokens of the others wait",
}
#: Requests at once on CPU, where cores are the bound; a guess.
_CPU_REQUESTS: Final = 64
#: Tokens of one step where small ones are wanted: SGLang's own on GPUs below 20 GiB, so that it fits on every other.
#: Source: handle_gpu_memory_settings.
_SMALL_STEP: Final = 2048
#: What SGLang keeps free of weights and cache by itself, so that all else of it has room: 512 MiB, 1.5 MiB per token of a
#: step, 1 GiB for eight GPUs, 2 MiB per request of a graph; 10 GiB at least on GPUs above 60 GiB. Source: arg_groups/
#: memory_hook.py, handle_gpu_memory_settings; buffers of DeepEP and models with an image part take more.
_RESERVE_MIB: Final = 512
_LEAST_RESERVE_MIB: Final = 10_240
_LARGE_GPU: Final = 60 * 2**30
#: Parts of a prompt fill whole pages of the KV cache, or SGLang does not start; the largest page that it chooses.
_PAGE: Final = 256
#: Rounds of one token each that the requests which generate get between two parts of a prompt; the smallest number.
_DECODE_ROUNDS: Final = 1

#: Seconds to start apart from reading the model: imports, compilation, graphs, and SGLang's own bound of 600 s for the
#: request that warms up. A guess.
START_BASE_S: Final = 600
#: Seconds by which the probe outlasts the engine's own limit: the message of an engine that gives up is worth more than
#: a kill.
_START_MARGIN_S: Final = 120
_START_PERIOD_S: Final = 5

#: Seconds in which `/health_generate` waits for a sign of life, and which the probe waits.
_HEALTH_S: Final = 20
_LIVENESS_TIMEOUT_S: Final = 25

#: Seconds in which routers and endpoints forget a pod that is going.
_FORGET_S: Final = 5
#: Seconds from the end of the last request to SIGKILL: SIGTERM is seen within 5 s, the end of the requests within 5 s
#: more, and the schedulers have 15 s to stop (sigterm_watchdog in managers/tokenizer_manager.py).
STOP_S: Final = 40

#: Room in /dev/shm. A bound, not a reservation: only what is written counts as the container's memory. A guess: examples
#: for SGLang name 10 to 32 GiB.
_SHM_BYTES: Final = 10 * 2**30
#: Bytes of the container that must stay free beside the offloaded KV cache. Source: HICACHE_HOST_MEMORY_RESERVE_BYTES.
_OFFLOAD_RESERVE: Final = 10 * 2**30
#: `--hicache-size` counts these. Source: mem_cache/pool_host/base.py.
_GB: Final = 10**9

_ALGORITHMS: Final[Mapping[str, str]] = {
    "ngram": "NGRAM",
    "draftModel": "STANDALONE",
    "eagle": "EAGLE",
    "eagle3": "EAGLE3",
    "mtp": "NEXTN",
}


#: Source: srt/observability/metrics_collector.py of 0.5.23. When it started is not told: its registry is for several
#: processes.
_COUNTERS: Final = Counters(
    running="sglang:num_running_reqs",
    waiting="sglang:num_queue_reqs",
    prompt_tokens="sglang:prompt_tokens_total",
    cached_prompt_tokens="sglang:cached_tokens_total",
    output_tokens="sglang:generation_tokens_total",
    kv_use="sglang:token_usage",
)


_SIGN: Final = EngineSign(engine="sglang", owned_by="sglang", version_path="/server_info")


@dataclass(frozen=True, slots=True)
class Sglang:
    """The `sglang` engine."""

    name: str = "sglang"
    default_version: str = "0.5.23"
    default_image_path: str | None = None
    counters: Counters = _COUNTERS
    sign: EngineSign = _SIGN

    def default_image(self, version: str, resource_name: str | None) -> str | None:
        # AMD's images are made for one family of GPUs each (v0.5.23-rocm720-mi30x, -mi35x), which nobody says here.
        # The one for CPU needs a Xeon with AMX.
        flavour = {None: "-xeon", "nvidia.com/gpu": ""}.get(resource_name)
        return f"lmsysorg/sglang:v{version}{flavour}" if flavour is not None else None

    def flag_table(self, version: str) -> FlagTable | None:
        return FlagTable.load(self.name, version)

    def model_kind(self, args: Sequence[str]) -> ModelKind:
        # One that generates may rerank as well, by the template of its chat; it answers a chat, too.
        return "embed" if "--is-embedding" in args else "generate"

    def choose_concurrency(self, spec: InferenceServiceSpec, layout: Layout) -> Choice:
        kind, wanted = _kind(spec)
        requests = _REQUESTS[kind]
        if not layout.gpus and requests > _CPU_REQUESTS:
            return Choice(
                value=_CPU_REQUESTS,
                why=f"{_CPU_REQUESTS} requests at once per replica for {wanted}: on CPU the cores are the bound",
            )
        return Choice(
            value=requests, why=f"{requests} requests at once per replica for {wanted}: {_WHY_REQUESTS[kind]}"
        )

    def choose_batched_tokens(self, spec: InferenceServiceSpec, layout: Layout, *, least: int) -> Choice | None:
        """Only where they are not SGLang's to choose by the GPU's memory."""
        if {"--chunked-prefill-size", "--max-prefill-tokens"} & {*names_in(spec.engine.args or ())}:
            return None
        kind, wanted = _kind(spec)
        options = spec.engine.options
        if options is not None and options.chunked_prefill is False:
            tokens = max(least, _SMALL_STEP)
            return Choice(
                value=tokens,
                why=f"{tokens} tokens per step, because engine.options.chunkedPrefill is false: a step needs room for a whole "
                "prompt, and SGLang sets 1.5 MiB of the GPU aside for each token of it",
            )
        if self.model_kind(spec.engine.args or ()) == "generate" and kind == "interactive":
            return Choice(
                value=_SMALL_STEP,
                why=f"{_SMALL_STEP} tokens per step for {wanted}: longer prompts are read in parts, and the requests that "
                "generate get a token between two of them",
            )
        return None

    def suits(self, asked: Asked) -> Suit | Misfit:
        if is_gguf(asked.source):
            return Misfit(why="SGLang reads one local GGUF file at most, and is not used for it here")
        if not asked.gpu_resources:
            return Misfit(why="it serves safetensors on GPUs; without one it is chosen by its name only")
        shared = asked.spec.workload is not None and bool(asked.spec.workload.shared_prefix_tokens)
        if shared or asked.options.prefix_caching:
            return Suit(rank=3, why="requests share the beginnings of their prompts, which SGLang keeps in a tree")
        if asked.options.structured_output:
            return Suit(rank=2, why="engine.options.structuredOutput is true, which SGLang and vLLM have")
        return Suit(rank=0, why="it serves safetensors on GPUs")

    def memory_use(self, gpu_bytes: int, facts: ModelFacts, step: Step, args: Sequence[str]) -> MemoryUse:
        said = dict(pairs_in(args)).get("--mem-fraction-static")
        if said is not None:
            return MemoryUse(usable_bytes=int(gpu_bytes * Fraction(said)), overhead_bytes=0)
        tokens = step.tokens if step.tokens is not None else _step_of(gpu_bytes)
        reserve = _RESERVE_MIB + ceil(1.5 * max(tokens, _SMALL_STEP)) + 1024 * step.tensor * step.pipeline // 8
        reserve += 2 * step.requests  # graphs
        if gpu_bytes > _LARGE_GPU:
            reserve = max(reserve, _LEAST_RESERVE_MIB)
        return MemoryUse(usable_bytes=max(0, gpu_bytes - reserve * 2**20), overhead_bytes=0)

    def cpu_memory_use(self, spec: InferenceServiceSpec, facts: ModelFacts, step: Step) -> CpuMemoryUse | None:
        return None  # what its rule makes of a container's limit was not looked at

    def cpu_cache(self, spec: InferenceServiceSpec, *, needed: int, left: int | None, limit: int | None) -> CpuCache:
        return CpuCache(least_bytes=needed, taken_bytes=needed)

    def whole_contexts(self, requests: int) -> int:
        return 1

    def kv_dtype(self, facts: ModelFacts, option: str | None) -> str | None:
        wanted = option if option not in (None, "auto") else "bfloat16"
        return wanted if wanted in KV_DTYPE_BYTES else None

    def refuse_split(self, facts: ModelFacts, *, tensor: int, pipeline: int, expert: bool = False) -> str | None:
        experts = refuse_experts(facts, tensor, expert=expert, must_divide=True)
        return refuse_tensor(facts, tensor) or refuse_pipeline(facts, pipeline) or experts

    def refuse(self, wanted: Wanted) -> Unplannable | None:
        return (
            refusals.refuse_sources(wanted, "SGLang")
            or _refuse_names(wanted)
            or refusals.refuse_gpu_count(wanted, self.name)
            or _refuse_options(wanted)
            or refusals.refuse_env(wanted, REFUSED_ENV)
            or _refuse_args(wanted)
        )

    def launch(self, request: LaunchRequest) -> Launch:
        plan = request.plan
        space = PodSpace()
        args = [
            "--model-path", space.bring_model(request.source),
            "--host", "0.0.0.0",
            "--port", str(PORT),
            "--served-model-name", plan.served_name,
            "--context-length", str(plan.max_context_length),
            "--max-running-requests", str(plan.concurrency),
            "--tp-size", str(plan.layout.tensor_degree),
            "--tokenizer-worker-num", str(request.options.api_server_count or 1),
            "--enable-metrics",
        ]  # fmt: skip
        if plan.layout.pipeline > 1:
            args += ["--pp-size", str(plan.layout.pipeline)]
        if plan.layout.expert:
            # Fewer than the GPUs of a stage would divide each expert among some of them.
            args += ["--ep-size", str(plan.layout.tensor_degree)]
        if request.revision is not None:
            # Weights and tokenizer.
            args += ["--revision", request.revision]
        if request.quantization is not None:
            args += ["--quantization", request.quantization]
        args += _step_args(request)
        args += _option_args(request)
        args += _adapter_args(request, space)
        if request.options.speculative is not None:
            args += _speculative(request.options.speculative, space)
        given = names_in(request.args)
        if not plan.layout.gpus:
            args += ["--device", "cpu"]
            # Room for every request at once, and not for all memory that is free.
            args += without(["--max-total-tokens", str(plan.max_context_length * plan.concurrency)], given)
        if "--uvicorn-access-log-exclude-prefixes" not in given:
            # Probes and scrapes would fill the log, whose end explains a crash.
            args += ["--uvicorn-access-log-exclude-prefixes", "/health", "/metrics"]
        budget = start_budget_s(request.source, request.max_model_bytes, base_s=START_BASE_S)
        space.add_scratch(_SHM_BYTES)
        return Launch(
            # Said, or the hub is asked whether the model draws pictures.
            command=("sglang", "serve", "--model-type", "llm"),
            args=(*args, *request.args),
            port=PORT,
            env=tuple(_env(request, space, budget)),
            volumes=tuple(space.volumes),
            mounts=tuple(space.mounts),
            # `/ready` would do as well; older versions have none. 503 until the server has warmed up.
            startup=Probe(
                path="/health",
                period_s=_START_PERIOD_S,
                timeout_s=5,
                failure_threshold=ceil((budget + _START_MARGIN_S) / _START_PERIOD_S),
            ),
            # A burst must not take a pod out of the endpoints: long time-out, several failures.
            readiness=Probe(path="/health", period_s=5, timeout_s=5, failure_threshold=6),
            # Any answer to anybody counts. A long prompt may hold all of them up, so it takes several failures; the
            # kubelet asks no more once the pod is going, when the answer is 503.
            liveness=Probe(path="/health_generate", period_s=30, timeout_s=_LIVENESS_TIMEOUT_S, failure_threshold=5),
            pre_stop={"sleep": {"seconds": _FORGET_S}},
            grace_s=_FORGET_S + request.request_timeout_s + STOP_S,
            metrics_path="/metrics",
        )


def _step_of(gpu_bytes: int) -> int:
    """Tokens of a step that SGLang chooses by the GPU's memory. Source: handle_gpu_memory_settings."""
    for below_gib, tokens in ((20, 2048), (35, 2048), (60, 4096), (90, 8192), (160, 8192)):
        if gpu_bytes < below_gib * 2**30:
            return tokens
    return 16_384


# --- arguments ---


def _kind(spec: InferenceServiceSpec) -> tuple[str, str]:
    """The kind of workload, and how a reason speaks of it."""
    if spec.workload is not None and spec.workload.kind is not None:
        return spec.workload.kind, f"workload.kind {spec.workload.kind}"
    return "chat", "chat, because workload.kind is not set"


def _step_args(request: LaunchRequest) -> list[str]:
    """How much of which prompts a step reads."""
    chunked, tokens = request.options.chunked_prefill, request.plan.max_batched_tokens
    given = names_in(request.args)
    args = list[str]()
    if chunked is False:
        args += ["--chunked-prefill-size", "-1"]
        args += ["--max-prefill-tokens", str(tokens)] if tokens is not None else []
    elif tokens is not None:
        # Kept from a revision that read whole prompts, it may be any number.
        args += ["--chunked-prefill-size", str(max(tokens // _PAGE, 1) * _PAGE)]
    is_even = chunked is True or request.workload_kind == "interactive"
    if request.plan.kind == "generate" and is_even:
        args += ["--prefill-decode-interval", str(_DECODE_ROUNDS)]
    return without(args, given)


def _option_args(request: LaunchRequest) -> list[str]:
    options = request.options
    args = list[str]()
    if options.prefix_caching is False:
        # On otherwise, for every model that can; there is no flag for it.
        args.append("--disable-radix-cache")
    if options.kv_cache_dtype is not None:
        args += ["--kv-cache-dtype", options.kv_cache_dtype]
    if options.kv_offload is not None:
        size = refusals.offload_bytes(options.kv_offload) // (_GB * max(1, request.plan.layout.gpus))
        args += ["--enable-hierarchical-cache", "--hicache-size", str(int(size))]
    if options.structured_output is not None:
        args += ["--grammar-backend", "xgrammar" if options.structured_output else "none"]
    return args


def _adapter_args(request: LaunchRequest, space: PodSpace) -> list[str]:
    if not request.adapters:
        return []
    paths = [
        compact_json(
            {
                "lora_name": adapter.name.removeprefix(f"{request.plan.served_name}:"),
                "lora_path": space.bring_adapter(parse_model_uri(adapter.uri), number),
            }
        )
        for number, adapter in enumerate(request.adapters)
    ]
    # Room for all of them at once, and for the model without one: none waits until another has left the GPU.
    room = without(["--max-loras-per-batch", str(len(request.adapters) + 1)], names_in(request.args))
    return ["--enable-lora", *room, "--lora-paths", *paths]


def _speculative(wanted: SpeculativeSpec, space: PodSpace) -> list[str]:
    """Guesses in a row, and no tree of them: `tokens` of them, and one that the model itself adds."""
    args = ["--speculative-algorithm", _ALGORITHMS[wanted.method]]
    if wanted.method == "ngram":
        args += ["--speculative-ngram-max-bfs-breadth", "1"]
    else:
        args += ["--speculative-num-steps", str(wanted.tokens), "--speculative-eagle-topk", "1"]
    args += ["--speculative-num-draft-tokens", str(wanted.tokens + 1)]
    if wanted.uri is not None:
        args += ["--speculative-draft-model-path", space.bring_draft(parse_model_uri(wanted.uri))]
    if wanted.revision is not None:
        args += ["--speculative-draft-model-revision", wanted.revision]
    return args


def _env(request: LaunchRequest, space: PodSpace, budget: int) -> list[dict[str, Any]]:
    values = {
        **home("sglang"),
        # SGLang points the caches of Triton, torch, FlashInfer, TileLang and the driver below it.
        "SGLANG_CACHE_DIR": f"{CACHE_FOLDER}/sglang",
        "SGLANG_WARMUP_TIMEOUT": str(budget),
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false",
        "SGLANG_HEALTH_CHECK_TIMEOUT": str(_HEALTH_S),
    }
    if not space.needs_hub:
        values["HF_HUB_OFFLINE"] = "1"
    if not request.plan.layout.gpus:
        values["SGLANG_USE_CPU_ENGINE"] = "1"
    return [*({"name": name, "value": value} for name, value in values.items()), *hub_token(request.auth_secret)]


# --- what is refused ---


def _refuse_names(wanted: Wanted) -> Unplannable | None:
    served = wanted.served_name
    if ":" in served:
        return Unplannable(
            code="UnsupportedOption",
            message=f"model.name '{served}' has a colon, and SGLang, which calls an adapter MODEL:ADAPTER, does not start with "
            f"it. Name the model otherwise, such as '{served.replace(':', '-')}'.",
        )
    for adapter in wanted.spec.model.adapters or ():
        if not adapter.name.startswith(f"{served}:") or adapter.name == f"{served}:":
            own = adapter.name.rpartition(":")[2] or "NAME"
            return Unplannable(
                code="UnsupportedOption",
                message=f"model.adapters['{adapter.name}'] could not be asked for: SGLang knows an adapter by MODEL:ADAPTER only, "
                "and answers requests for any other name with the model alone. Name the adapter "
                f"'{served}:{own}', or use engine.name vllm.",
            )
    return None


def _refuse_options(wanted: Wanted) -> Unplannable | None:
    speculative = wanted.options.speculative
    if speculative is not None and speculative.method == "draftModel" and wanted.spec.model.adapters:
        return Unplannable(
            code="UnsupportedOption",
            message="engine.options.speculative.method draftModel and model.adapters are both set, and SGLang does not start "
            "with both. Use ngram, eagle, eagle3 or mtp, or remove one of them.",
        )
    return refusals.refuse_offload(
        wanted,
        least=f"{max(1, wanted.layout.gpus)}G",
        needed_bytes=_OFFLOAD_RESERVE,
        needed_for=", of which SGLang leaves 10Gi free beside it",
    )


def _refuse_args(wanted: Wanted) -> Unplannable | None:
    default = FlagTable.load("sglang", Sglang().default_version)
    assert default is not None, "the default version has a table"
    problems = refusals.argument_problems(wanted, default, RESERVED)
    return Unplannable(code="InvalidArgs", message=" ".join(problems)) if problems else None
