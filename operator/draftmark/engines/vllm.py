"""vLLM's `vllm serve`: models of safetensors, on the GPUs of one pod or on CPU.

Traps that this file exists for:
- The image's entry point is `vllm serve` already; older images and AMD's have another. The command is always written,
  and the arguments begin with the model.
- SIGTERM aborts every request unless `--shutdown-timeout` says otherwise. Then the server takes no new request, waits
  until none is running, and ends at once when it is idle. The pod waits before SIGTERM only until routers forgot it, and
  SIGKILL comes after both.
- The API process gives up on the engine after 600 s, whatever the probe allows (`VLLM_ENGINE_READY_TIMEOUT_S`).
- HTTP is served only after the model is loaded and compiled, so `/health` is a start-up probe as well; the port is bound
  before that, so a TCP probe would say yes too soon.
- Batch sizes that are left out follow the GPU's memory, the context is the model's largest, and a server whose KV cache
  has no room for one request of it does not start. All three are written.
- The process needs a home: caches go below it, torch asks for the user's name, and the image knows the user 0 and 2000
  only. HOME, USER and the caches are set; the root file system is read-only.
- Workers of several GPUs, and a KV cache that leaves the GPU, live in /dev/shm, of which a container has 64 MB.
- A Service called `vllm` would set VLLM_PORT; pods of this operator get no such variables (enableServiceLinks: false).
- argparse takes the beginning of a flag for the flag, and dotted keys for JSON: the check of arguments knows both.
- On CPU the KV cache takes half of the node's memory, not of the container's, unless its size is said. The worker binds
  its memory to a node of the machine, which a pod of restricted security may not: it warns and goes on.
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

PORT: Final = 8000

_ONE_POD: Final = "nothing yet: a replica is one pod, and its GPUs are those of parallelism.tensor"
_KEYS: Final = "nothing yet: keys belong to the gateway, and the probes and metrics of the pod need none"
_PLAIN_HTTP: Final = "nothing: the probes and the Service speak plain HTTP"
_FOREIGN_CODE: Final = "nothing: it would run code in the pod that is not the engine's"
_ONE_KV_CACHE: Final = "nothing yet: a pod shares its KV cache with no other"

#: Flags that follow from fields of the InferenceService, and the field to use instead.
RESERVED: Final[Mapping[str, str]] = {
    "--host": "the operator (the pod's address)",
    "--port": "the operator (the Service's target)",
    "--uds": "the operator (the Service's target)",
    "--model": "model.uri",
    "--served-model-name": "model.name",
    "--revision": "model.revision",
    "--tokenizer-revision": "model.revision",
    "--code-revision": _FOREIGN_CODE,
    "--hf-token": "model.authSecretRef",
    "--download-dir": "the operator (the pod's own folder)",
    "--quantization": "model.quantization",
    "--max-model-len": "model.maxContextLength",
    "--max-num-seqs": "workload.concurrency",
    "--tensor-parallel-size": "parallelism.tensor",
    "--enable-expert-parallel": "parallelism.expert",
    "--distributed-executor-backend": _ONE_POD,
    "--enable-prefix-caching": "engine.options.prefixCaching",
    "--enable-chunked-prefill": "engine.options.chunkedPrefill",
    "--kv-cache-dtype": "engine.options.kvCacheDType",
    "--kv-offloading-size": "engine.options.kvOffload",
    "--kv-offloading-backend": "engine.options.kvOffload",
    "--speculative-config": "engine.options.speculative",
    "--spec-method": "engine.options.speculative",
    "--spec-model": "engine.options.speculative",
    "--spec-tokens": "engine.options.speculative",
    "--structured-outputs-config": "engine.options.structuredOutput",
    "--api-server-count": "engine.options.apiServerCount",
    "--enable-lora": "model.adapters",
    "--lora-modules": "model.adapters",
    "--max-lora-rank": "model.adapters (rank)",
    "--shutdown-timeout": "traffic.requestTimeout",
    "--api-key": _KEYS,
    "--ssl-keyfile": _PLAIN_HTTP,
    "--ssl-certfile": _PLAIN_HTTP,
    "--ssl-ca-certs": _PLAIN_HTTP,
    "--ssl-cert-reqs": _PLAIN_HTTP,
    "--ssl-ciphers": _PLAIN_HTTP,
    "--enable-ssl-refresh": _PLAIN_HTTP,
    "--grpc": _PLAIN_HTTP,
    "--grpc-port": _PLAIN_HTTP,
    "--root-path": "nothing: clients, probes and metrics use the paths as they are",
    "--disable-log-stats": "the operator (statistics are the metrics)",
    "--config": "nothing: a file would bring flags that nobody has checked",
    "--trust-remote-code": "nothing: it would run code of the model's repository in the pod",
    "--middleware": _FOREIGN_CODE,
    "--logits-processors": _FOREIGN_CODE,
    "--tool-parser-plugin": _FOREIGN_CODE,
    "--reasoning-parser-plugin": _FOREIGN_CODE,
    "--io-processor-plugin": _FOREIGN_CODE,
    "--worker-cls": _FOREIGN_CODE,
    "--worker-extension-cls": _FOREIGN_CODE,
    "--scheduler-cls": _FOREIGN_CODE,
    "--model-class-overrides": _FOREIGN_CODE,
    "--logging-config": _FOREIGN_CODE,
    "--log-config-file": _FOREIGN_CODE,
    "--tool-server": "nothing: it would let requests run tools in the pod's name",
    "--allowed-local-media-path": "nothing: files of the container are not served",
    "--kv-transfer-config": _ONE_KV_CACHE,
    "--ec-transfer-config": _ONE_KV_CACHE,
    "--pipeline-parallel-size": _ONE_POD,
    "--prefill-context-parallel-size": _ONE_POD,
    "--data-parallel-size": _ONE_POD,
    "--data-parallel-size-local": _ONE_POD,
    "--data-parallel-rank": _ONE_POD,
    "--data-parallel-start-rank": _ONE_POD,
    "--data-parallel-address": _ONE_POD,
    "--data-parallel-rpc-port": _ONE_POD,
    "--data-parallel-backend": _ONE_POD,
    "--data-parallel-external-lb": _ONE_POD,
    "--data-parallel-hybrid-lb": _ONE_POD,
    "--data-parallel-multi-port-external-lb": _ONE_POD,
    "--data-parallel-supervisor-port": _ONE_POD,
    "--enable-elastic-ep": _ONE_POD,
    "--nnodes": _ONE_POD,
    "--node-rank": _ONE_POD,
    "--master-addr": _ONE_POD,
    "--master-port": _ONE_POD,
    "--headless": _ONE_POD,
}

#: Variables that do what a flag does which is not the user's, past the check of arguments; and the field to use instead.
#: Source: vllm/envs.py; PROMETHEUS_MULTIPROC_DIR is the Prometheus client's.
REFUSED_ENV: Final[Mapping[str, str]] = {
    "VLLM_API_KEY": _KEYS,
    "VLLM_PORT": "the operator (it is the first port between processes, and a Service called vllm would set it)",
    "VLLM_ENGINE_READY_TIMEOUT_S": "the operator (as long as the start-up probe waits)",
    "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "the operator (a pod whose engine has ended must end)",
    "VLLM_SERVER_DEV_MODE": "nothing: it would let whoever reaches the port change the engine",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "model.adapters (every replica must have the same)",
    "VLLM_LORA_RESOLVER_CACHE_DIR": "model.adapters (every replica must have the same)",
    "VLLM_LORA_RESOLVER_HF_REPO_LIST": "model.adapters (every replica must have the same)",
    "VLLM_PLUGINS": _FOREIGN_CODE,
    "VLLM_ALLOW_INSECURE_SERIALIZATION": _FOREIGN_CODE,
    "VLLM_LOGGING_CONFIG_PATH": _FOREIGN_CODE,
    "VLLM_USE_RUST_FRONTEND": "nothing: it is another server, whose flags and metrics were not looked at",
    "VLLM_RUST_FRONTEND_PATH": "nothing: it is another server, whose flags and metrics were not looked at",
    "VLLM_USE_MODELSCOPE": "model.uri (hf:// is the Hugging Face hub)",
    "VLLM_MODEL_REDIRECT_PATH": "model.uri",
    "VLLM_SKIP_MODEL_NAME_VALIDATION": "model.name",
    "VLLM_DP_RANK": _ONE_POD,
    "VLLM_DP_RANK_LOCAL": _ONE_POD,
    "VLLM_DP_SIZE": _ONE_POD,
    "VLLM_DP_MASTER_IP": _ONE_POD,
    "VLLM_DP_MASTER_PORT": _ONE_POD,
    "PROMETHEUS_MULTIPROC_DIR": "the engine (a folder that held files before would count them)",
}

#: Flags that are ours unless the user writes them: no field sets them.
OVERRIDABLE: Final = (
    "--gpu-memory-utilization",
    "--disable-access-log-for-endpoints",
    "--max-loras",
    "--max-cpu-loras",
)

#: Requests at once and tokens of one step, by kind of workload. Requests: vLLM's own bounds are 256 on GPUs below 70 GiB
#: and 1024 on others (vllm/engine/arg_utils.py, get_batch_defaults); 512, for GPUs of unknown size, and 64 are guesses.
#: Tokens: vLLM's guide "Optimization and Tuning" names 2048 for an even flow of tokens and more than 8192 for throughput.
_BATCHES: Final[Mapping[str, tuple[int, int]]] = {
    "chat": (256, 8192),
    "batch": (512, 16384),
    "interactive": (64, 2048),
}
#: vLLM's own bounds on CPU. Source: get_batch_defaults.
_CPU_BATCH: Final = (128, 2048)
_WHY_REQUESTS: Final[Mapping[str, str]] = {
    "chat": "as many as vLLM itself takes on GPUs below 70 GiB",
    "batch": "many at once bring the most tokens per second",
    "interactive": "few, because every further one makes the tokens of the others wait",
}
_WHY_TOKENS: Final[Mapping[str, str]] = {
    "chat": "large enough that most prompts are read in one step, which brings their first token soon",
    "batch": "large steps bring the most tokens per second",
    "interactive": "small steps keep the tokens of all requests flowing evenly",
}

#: Seconds to start apart from reading the model: imports, compilation and the capture of graphs. A guess on the slow
#: side; 105 s were seen for a tiny model on two cores.
START_BASE_S: Final = 600
#: Seconds by which the probe outlasts the engine's own limit: the message of an engine that gives up is worth more than
#: a kill, and its clock starts after Python's imports.
_START_MARGIN_S: Final = 120
_START_PERIOD_S: Final = 5

#: Seconds in which routers and endpoints forget a pod that is going.
_FORGET_S: Final = 5
#: Seconds from the end of the drain to SIGKILL: workers have 5 s to stop (VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS).
STOP_S: Final = 30

_GIB: Final = 2**30
#: Share of a GPU that vLLM takes, weights included. Source: its own default of --gpu-memory-utilization in 0.33.
_GPU_SHARE: Final = "0.92"
#: What vLLM takes besides weights, cache and the activations of a step: graphs, workspaces, communication. A guess; two to
#: six GiB in all are what users leave.
_FIXED_BYTES: Final = _GIB
#: Activations are of 16 bit, and logits of 32, with a copy that is sampled from. A token's activations are counted as four
#: times the hidden size and three times the part of the feed-forward size that is on the GPU; an estimate.
_ACTIVATION_BYTES: Final = 2
_LOGIT_BYTES: Final = 8
#: Room in /dev/shm apart from offloaded KV cache. A bound, not a reservation: only what is written counts as the
#: container's memory. A guess: examples for vLLM name 10 to 32 GiB.
_SHM_BYTES: Final = 10 * _GIB
#: Room for each byte of offloaded KV cache; models of several cache groups were seen to take 1.92 (vLLM issue 53042).
_SHM_PER_OFFLOADED: Final = 2
#: Share of the container's memory for the KV cache on CPU where the model is not known or needs less; a guess, the rest is
#: for weights and buffers.
_CPU_KV_SHARE: Final = 4
#: Variable with the GiB of the KV cache on CPU, a whole number. Source: vllm/envs.py of 0.33.
_CPU_KV_SPACE: Final = "VLLM_CPU_KVCACHE_SPACE"
#: On CPU: the processes (server, engine, worker) with what they import, without the activations of a step. A guess.
_CPU_PROCESSES_BYTES: Final = 2 * _GIB

#: Ranks that `--max-lora-rank` takes. Source: MaxLoRARanks in vllm/config/lora.py, also in the flag table.
LORA_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
DEFAULT_LORA_RANK: Final = 16

_METHODS: Final[Mapping[str, str]] = {
    "ngram": "ngram",
    "draftModel": "draft_model",
    "eagle": "eagle",
    "eagle3": "eagle3",
    "mtp": "mtp",
}
#: Tokens that must repeat for ngram. Source: vLLM's own default in vllm/config/speculative.py.
_NGRAM_TOKENS: Final = 5


#: Source: v1/metrics/loggers.py of 0.33.0. When it started is told by prometheus_client's own registry, and not where there are
#: several API servers, which share another one (v1/metrics/prometheus.py of 0.32.0; seen with one API server on CPU).
_COUNTERS: Final = Counters(
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    prompt_tokens="vllm:prompt_tokens_total",
    cached_prompt_tokens="vllm:prompt_tokens_cached_total",
    output_tokens="vllm:generation_tokens_total",
    kv_use="vllm:kv_cache_usage_perc",
    started="process_start_time_seconds",
)


_SIGN: Final = EngineSign(engine="vllm", owned_by="vllm", version_path="/version")


@dataclass(frozen=True, slots=True)
class Vllm:
    """The `vllm` engine."""

    name: str = "vllm"
    default_version: str = "0.33.0"
    default_image_path: str | None = None
    counters: Counters = _COUNTERS
    sign: EngineSign = _SIGN

    def default_image(self, version: str, resource_name: str | None) -> str | None:
        flavour = {None: "-cpu", "nvidia.com/gpu": "", "amd.com/gpu": "-rocm"}.get(resource_name)
        return f"vllm/vllm-openai{flavour}:v{version}" if flavour is not None else None

    def flag_table(self, version: str) -> FlagTable | None:
        return FlagTable.load(self.name, version)

    def model_kind(self, args: Sequence[str]) -> ModelKind:
        said = dict(pairs_in(args))
        if said.get("--convert") == "classify":
            return "rerank"
        return "embed" if said.get("--runner") == "pooling" or said.get("--convert") == "embed" else "generate"

    def choose_concurrency(self, spec: InferenceServiceSpec, layout: Layout) -> Choice:
        kind, wanted = _kind(spec)
        requests = _BATCHES[kind][0]
        if not layout.gpus and requests > _CPU_BATCH[0]:
            return Choice(
                value=_CPU_BATCH[0],
                why=f"{_CPU_BATCH[0]} requests at once per replica for {wanted}: vLLM's own bound on CPU",
            )
        return Choice(
            value=requests, why=f"{requests} requests at once per replica for {wanted}: {_WHY_REQUESTS[kind]}"
        )

    def choose_batched_tokens(self, spec: InferenceServiceSpec, layout: Layout, *, least: int) -> Choice | None:
        if "--max-num-batched-tokens" in names_in(spec.engine.args or ()):
            return None
        kind, wanted = _kind(spec)
        tokens = _BATCHES[kind][1] if layout.gpus else _CPU_BATCH[1]
        why = _WHY_TOKENS[kind] if layout.gpus else "vLLM's own bound on CPU"
        if least > tokens:
            return Choice(
                value=least,
                why=f"{least} tokens per step instead of the {tokens} for {wanted}: a step needs room for one token of "
                "every request, and for a whole prompt where engine.options.chunkedPrefill is false or the model embeds or "
                "reranks",
            )
        options = spec.engine.options
        is_generating = self.model_kind(spec.engine.args or ()) == "generate"
        whole = (options is not None and options.chunked_prefill is False) or not is_generating
        parts = "" if whole else "; longer prompts are read in parts, between the tokens of other requests"
        return Choice(value=tokens, why=f"{tokens} tokens per step for {wanted}: {why}{parts}")

    def suits(self, asked: Asked) -> Suit | Misfit:
        if is_gguf(asked.source):
            return Misfit(why="vLLM reads no GGUF")
        if not asked.gpu_resources:
            return Misfit(why="it serves safetensors on GPUs; without one it is chosen by its name only")
        return Suit(rank=1, why="vLLM serves the most models of safetensors on GPUs")

    def memory_use(self, gpu_bytes: int, facts: ModelFacts, step: Step, args: Sequence[str]) -> MemoryUse:
        said = dict(pairs_in(args)).get("--gpu-memory-utilization", _GPU_SHARE)
        return MemoryUse(
            usable_bytes=int(gpu_bytes * Fraction(said)),
            overhead_bytes=_FIXED_BYTES + _step_bytes(facts, step, _BATCHES["chat"][1]),
        )

    def cpu_memory_use(self, spec: InferenceServiceSpec, facts: ModelFacts, step: Step) -> CpuMemoryUse | None:
        return CpuMemoryUse(overhead_bytes=_CPU_PROCESSES_BYTES + _step_bytes(facts, step, _CPU_BATCH[1]))

    def cpu_cache(self, spec: InferenceServiceSpec, *, needed: int, left: int | None, limit: int | None) -> CpuCache:
        """Whole GiB, set aside at the start. A quarter of the limit, or as much as is needed; the user's variable counts."""
        said = next((v.value for v in spec.engine.env or () if v.name == _CPU_KV_SPACE and v.value), None)
        if said is not None and said.isascii() and said.isdecimal():
            taken = int(said[:6]) * _GIB
            return CpuCache(least_bytes=max(needed, taken), taken_bytes=taken)
        least = max(1, ceil(needed / _GIB)) * _GIB
        if left is None or limit is None:
            note = "vLLM takes half of the node's memory for its cache until a limit is set"
            return CpuCache(least_bytes=least, taken_bytes=least, note=note)
        usual = min(limit // _CPU_KV_SHARE, left) // _GIB * _GIB
        return CpuCache(least_bytes=least, taken_bytes=max(least, usual) if least <= left else left)

    def whole_contexts(self, requests: int) -> int:
        return 1

    def kv_dtype(self, facts: ModelFacts, option: str | None) -> str | None:
        wanted = option if option not in (None, "auto") else "bfloat16"
        return wanted if wanted in KV_DTYPE_BYTES else None

    def refuse_split(self, facts: ModelFacts, *, tensor: int, pipeline: int, expert: bool = False) -> str | None:
        experts = refuse_experts(facts, tensor, expert=expert, must_divide=False)
        return refuse_tensor(facts, tensor) or refuse_pipeline(facts, pipeline) or experts

    def refuse(self, wanted: Wanted) -> Unplannable | None:
        return (
            refusals.refuse_sources(wanted, "vLLM")
            or refusals.refuse_gpu_count(wanted, self.name)
            or refusals.refuse_offload(wanted, least="1Mi")
            or refusals.refuse_env(wanted, REFUSED_ENV)
            or _refuse_args(wanted)
        )

    def launch(self, request: LaunchRequest) -> Launch:
        plan, options = request.plan, request.options
        space = PodSpace()
        model = space.bring_model(request.source)
        tensor, pipeline = plan.layout.tensor_degree, plan.layout.pipeline
        args = [
            model,
            "--host", "0.0.0.0",
            "--port", str(PORT),
            "--served-model-name", plan.served_name,
            "--max-model-len", str(plan.max_context_length),
            "--max-num-seqs", str(plan.concurrency),
            "--tensor-parallel-size", str(tensor),
            "--api-server-count", str(options.api_server_count or 1),
            "--shutdown-timeout", str(request.request_timeout_s),
        ]  # fmt: skip
        if plan.max_batched_tokens is not None:
            args += ["--max-num-batched-tokens", str(plan.max_batched_tokens)]
        if pipeline > 1:
            args += ["--pipeline-parallel-size", str(pipeline)]
        if plan.layout.expert:
            args.append("--enable-expert-parallel")
        if tensor * pipeline > 1:
            # One pod, so processes; Ray is for several.
            args += ["--distributed-executor-backend", "mp"]
        if request.revision is not None:
            args += ["--revision", request.revision, "--tokenizer-revision", request.revision]
        if request.quantization is not None:
            args += ["--quantization", request.quantization]
        args += _option_args(request)
        args += _adapter_args(request, space)
        if options.speculative is not None:
            args += ["--speculative-config", compact_json(_speculative(options.speculative, space))]
        given = names_in(request.args)
        # Probes and scrapes would fill the log, whose end explains a crash.
        ours = ["--disable-access-log-for-endpoints", "/health,/metrics"]
        ours += ["--gpu-memory-utilization", _GPU_SHARE] if plan.layout.gpus else []
        args += without(ours, given)
        budget = start_budget_s(request.source, request.max_model_bytes, base_s=START_BASE_S)
        shm_bytes = _SHM_BYTES + _SHM_PER_OFFLOADED * ceil(refusals.offload_bytes(options.kv_offload))
        space.add_scratch(shm_bytes)
        return Launch(
            command=("vllm", "serve"),
            args=(*args, *request.args),
            port=PORT,
            env=tuple(_env(request, space, budget)),
            volumes=tuple(space.volumes),
            mounts=tuple(space.mounts),
            startup=Probe(
                path="/health",
                period_s=_START_PERIOD_S,
                timeout_s=5,
                failure_threshold=ceil((budget + _START_MARGIN_S) / _START_PERIOD_S),
            ),
            # A burst must not take a pod out of the endpoints: long time-out, several failures.
            readiness=Probe(path="/health", period_s=5, timeout_s=5, failure_threshold=6),
            # An engine that has died ends the server by itself within 5 s; this is for one that hangs.
            liveness=Probe(path="/health", period_s=10, timeout_s=10, failure_threshold=6),
            pre_stop={"sleep": {"seconds": _FORGET_S}},
            grace_s=_FORGET_S + request.request_timeout_s + STOP_S,
            metrics_path="/metrics",
        )


def _step_bytes(facts: ModelFacts, step: Step, tokens: int) -> int:
    """Activations and logits of a step; of so many tokens where the step says none."""
    active = facts.num_experts_per_tok * facts.moe_intermediate_size + facts.shared_expert_intermediate_size
    width = 4 * facts.hidden_size + 3 * ceil(max(facts.intermediate_size, active) / step.tensor)
    logits = step.requests * facts.vocab_size * _LOGIT_BYTES
    return (step.tokens if step.tokens is not None else tokens) * width * _ACTIVATION_BYTES + logits


# --- arguments ---


def _kind(spec: InferenceServiceSpec) -> tuple[str, str]:
    """The kind of workload, and how a reason speaks of it."""
    if spec.workload is not None and spec.workload.kind is not None:
        return spec.workload.kind, f"workload.kind {spec.workload.kind}"
    return "chat", "chat, because workload.kind is not set"


def _option_args(request: LaunchRequest) -> list[str]:
    options = request.options
    args = list[str]()
    if options.prefix_caching is not None:
        args.append("--enable-prefix-caching" if options.prefix_caching else "--no-enable-prefix-caching")
    if options.chunked_prefill is not None:
        args.append("--enable-chunked-prefill" if options.chunked_prefill else "--no-enable-chunked-prefill")
    elif request.workload_kind is not None and request.plan.kind == "generate":
        # Left open otherwise: vLLM knows the models that cannot.
        args.append("--enable-chunked-prefill")
    if options.kv_cache_dtype is not None:
        args += ["--kv-cache-dtype", options.kv_cache_dtype]
    if options.kv_offload is not None:
        gib = refusals.offload_bytes(options.kv_offload) / _GIB
        args += ["--kv-offloading-size", f"{gib:.6f}".rstrip("0").rstrip("."), "--kv-offloading-backend", "native"]
    if options.structured_output:
        # Per request the first library that can do what it demands.
        args += ["--structured-outputs-config", compact_json({"backend": "auto"})]
    return args


def _adapter_args(request: LaunchRequest, space: PodSpace) -> list[str]:
    if not request.adapters:
        return []
    modules = [
        compact_json(
            {
                "name": adapter.name,
                "path": space.bring_adapter(parse_model_uri(adapter.uri), number),
                "base_model_name": request.plan.served_name,
            }
        )
        for number, adapter in enumerate(request.adapters)
    ]
    needed = max(adapter.rank or DEFAULT_LORA_RANK for adapter in request.adapters)
    rank = next(rank for rank in LORA_RANKS if rank >= needed)
    count = str(len(request.adapters))
    # Room for all of them at once: none waits until another has left the GPU.
    room = without(["--max-loras", count, "--max-cpu-loras", count], names_in(request.args))
    return ["--enable-lora", "--max-lora-rank", str(rank), *room, "--lora-modules", *modules]


def _speculative(wanted: SpeculativeSpec, space: PodSpace) -> dict[str, Any]:
    config: dict[str, Any] = {"method": _METHODS[wanted.method], "num_speculative_tokens": wanted.tokens}
    if wanted.method == "ngram":
        config |= {"prompt_lookup_min": _NGRAM_TOKENS, "prompt_lookup_max": _NGRAM_TOKENS}
    if wanted.uri is not None:
        config["model"] = space.bring_draft(parse_model_uri(wanted.uri))
    if wanted.revision is not None:
        config["revision"] = wanted.revision
    return config


# --- the pod ---


def _env(request: LaunchRequest, space: PodSpace, budget: int) -> list[dict[str, Any]]:
    values = {
        **home("vllm"),
        "VLLM_CACHE_ROOT": f"{CACHE_FOLDER}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_FOLDER}/torchinductor",
        "TRITON_CACHE_DIR": f"{CACHE_FOLDER}/triton",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(budget),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if not space.needs_hub:
        values["HF_HUB_OFFLINE"] = "1"
    if not request.plan.layout.gpus and request.max_model_bytes is not None:
        memory = request.plan.memory
        cache = memory.kv_bytes if memory is not None else request.max_model_bytes // _CPU_KV_SHARE
        values[_CPU_KV_SPACE] = str(max(1, cache // _GIB))
    return [*({"name": name, "value": value} for name, value in values.items()), *hub_token(request.auth_secret)]


# --- what is refused ---


def _refuse_args(wanted: Wanted) -> Unplannable | None:
    default = FlagTable.load("vllm", Vllm().default_version)
    assert default is not None, "the default version has a table"
    problems = refusals.argument_problems(wanted, default, RESERVED)
    given = names_in(wanted.args)
    if "--enable-auto-tool-choice" in given and "--tool-call-parser" not in given:
        # Not argparse says so but what looks at its result, so no flag table knows it.
        problems.append(
            "--enable-auto-tool-choice needs a parser for the model's calls. Add --tool-call-parser with the model's "
            "(hermes, llama3_json, mistral ...), or remove it."
        )
    return Unplannable(code="InvalidArgs", message=" ".join(problems)) if problems else None
