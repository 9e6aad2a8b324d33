"""How llama-server is started."""

import subprocess
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.api.inference_service import EngineOptions
from draftmark.api.model_uri import parse_model_uri
from draftmark.engines.engine import Launch, LaunchRequest, Wanted
from draftmark.engines.flag_table import check_args
from draftmark.engines.llama_cpp import RESERVED, START_BASE_S, LlamaCpp
from draftmark.engines.start_budget import START_MAX_S, START_UNKNOWN_S
from draftmark.plan import Layout, Plan, Unplannable
from tests.engines.rendering import planned
from tests.specs import parse, spec, with_field

ENGINE = LlamaCpp()
TABLE = ENGINE.flag_table(ENGINE.default_version)
PLAN = Plan(
    engine="llama-cpp", version="b1", image="i", layout=Layout(gpus=0), served_name="tiny", max_context_length=1000,
    concurrency=3,
)  # fmt: skip
REQUEST = LaunchRequest(
    plan=PLAN, source=parse_model_uri("pvc://claim/dir/m.gguf"), options=EngineOptions(), cpu_cores=None,
    max_model_bytes=None, auth_secret=None, request_timeout_s=600, is_own_image=False,
)  # fmt: skip


def launch(uri: str | None = None, **fields: Any) -> Launch:
    request = replace(REQUEST, source=parse_model_uri(uri)) if uri else REQUEST
    return ENGINE.launch(replace(request, **fields))


def value_of(launched: Launch, flag: str) -> str | None:
    """The word after a flag; the flag stands there once at most."""
    assert launched.args.count(flag) <= 1
    return launched.args[launched.args.index(flag) + 1] if flag in launched.args else None


SOURCES = {
    "pvc://claim/dir/m.gguf": {"--model": "/models/dir/m.gguf"},
    "oci://image:1#m.gguf": {"--model": "/models/m.gguf"},
    "hf://org/repo": {"--hf-repo": "org/repo"},
    "hf://org/repo:Q4": {"--hf-repo": "org/repo:Q4"},
    "hf://org/repo/d/m.gguf": {"--hf-repo": "org/repo", "--hf-file": "d/m.gguf"},
    "https://host/m.gguf": {"--model-url": "https://host/m.gguf"},
}


@pytest.mark.parametrize("uri", SOURCES)
def test_each_source_has_its_arguments(uri: str) -> None:
    flags = ("--model", "--hf-repo", "--hf-file", "--model-url")
    launched = launch(uri)
    assert {flag: value for flag in flags if (value := value_of(launched, flag)) is not None} == SOURCES[uri]


@pytest.mark.parametrize("uri", SOURCES)
def test_our_own_arguments_are_flags_of_the_default_version(uri: str) -> None:
    assert TABLE is not None
    options = EngineOptions(prefix_caching=False, kv_cache_dtype="q8_0")
    gpu = replace(PLAN, layout=Layout(gpus=1, resource_name="nvidia.com/gpu"))
    assert check_args(TABLE, launch(uri, options=options, plan=gpu, cpu_cores=4).args, {}) == ()


def test_a_file_is_mounted_read_only_and_a_download_gets_a_folder() -> None:
    for uri, source in (("pvc://claim/m.gguf", "persistentVolumeClaim"), ("oci://image:1", "image")):
        [volume], [mount] = launch(uri).volumes, launch(uri).mounts
        assert source in volume
        assert mount["readOnly"] is True
        assert launch(uri).env == ()
    for uri in ("hf://org/repo", "https://host/m.gguf"):
        [volume], [mount] = launch(uri).volumes, launch(uri).mounts
        assert "emptyDir" in volume
        assert {v["name"]: v["value"] for v in launch(uri).env} == {
            "HOME": mount["mountPath"],
            "LLAMA_CACHE": mount["mountPath"],
        }


def test_the_token_is_an_environment_variable_from_its_secret_and_never_an_argument() -> None:
    launched = launch("hf://org/repo", auth_secret=("hub", "token"))
    assert {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}} in launched.env
    assert not any("token" in word for word in launched.args)


@given(context=st.integers(16, 2**24), slots=st.integers(1, 1024))
def test_the_context_is_that_of_all_slots_together(context: int, slots: int) -> None:
    launched = launch(plan=replace(PLAN, max_context_length=context, concurrency=slots))
    assert value_of(launched, "--ctx-size") == str(context * slots)
    assert value_of(launched, "--parallel") == str(slots)


def test_nothing_shrinks_silently_and_metrics_are_on() -> None:
    assert value_of(launch(), "--fit") == "off"
    assert "--metrics" in launch().args
    assert value_of(launch(), "--host") == "0.0.0.0"
    assert value_of(launch(), "--alias") == "tiny"


def test_threads_are_written_only_when_the_cores_are_known() -> None:
    assert value_of(launch(), "--threads") is None
    assert value_of(launch(cpu_cores=3), "--threads") == "3"


def test_layers_go_to_the_gpu_when_there_is_one() -> None:
    gpu = replace(PLAN, layout=Layout(gpus=1, resource_name="nvidia.com/gpu", product="x"))
    assert value_of(launch(), "--n-gpu-layers") is None
    assert value_of(launch(plan=gpu), "--n-gpu-layers") == "all"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefix_caching": True}, ("--cache-prompt",)),
        ({"prefix_caching": False}, ("--no-cache-prompt",)),
        ({"kv_cache_dtype": "f16"}, ("--cache-type-k", "f16", "--cache-type-v", "f16")),
        ({"kv_cache_dtype": "q8_0"}, ("--cache-type-k", "q8_0", "--cache-type-v", "q8_0", "--flash-attn", "on")),
        ({}, ()),
    ],
)
def test_options_are_spelled_the_engines_way(options: dict[str, Any], words: tuple[str, ...]) -> None:
    plain, launched = launch().args, launch(options=EngineOptions(**options)).args
    assert launched == (*plain, *words)


def test_the_users_arguments_come_last() -> None:
    assert launch(args=["--verbose", "x y"]).args[-2:] == ("--verbose", "x y")


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        ([], "generate"), (["--verbose"], "generate"), (["--embedding"], "embed"), (["--embeddings"], "embed"),
        (["--rerank"], "rerank"), (["--verbose", "--reranking"], "rerank"),
    ],
)  # fmt: skip
def test_the_arguments_tell_what_the_model_does(args: list[str], kind: str) -> None:
    assert ENGINE.model_kind(args) == kind


# --- time ---


@pytest.mark.parametrize(
    ("source", "size", "budget"),
    [
        ("pvc://c/m.gguf", 5_000_000_000, START_BASE_S + 100), ("hf://o/r", 5_000_000_000, 120 + 500), ("pvc://c/m.gguf", 1, 121),
        ("pvc://c/m.gguf", None, START_UNKNOWN_S), ("pvc://c/m.gguf", 10**999, START_MAX_S),
    ],
)  # fmt: skip
def test_the_start_up_probe_waits_for_the_budget(source: str, size: int | None, budget: int) -> None:
    probe = launch(source, max_model_bytes=size).startup
    assert budget <= probe.period_s * probe.failure_threshold < budget + probe.period_s


@pytest.mark.parametrize("timeout", [1, 600, 86_400])
@pytest.mark.parametrize("is_own_image", [False, True])
def test_a_pod_drains_as_long_as_a_request_may_take_and_is_killed_later(timeout: int, is_own_image: bool) -> None:
    launched = launch(request_timeout_s=timeout, is_own_image=is_own_image)
    assert launched.grace_s > timeout
    if is_own_image:
        assert launched.pre_stop == {"sleep": {"seconds": timeout}}
    else:
        *_, longest, port, _ = launched.pre_stop["exec"]["command"]
        assert (longest, port) == (str(timeout), str(launched.port))


# --- the wait before the end, with a server that is none ---


class Server:
    """Answers as llama-server does; on a port of the loopback, or, without `with`, on none."""

    def __init__(self, *, busy_s: float = 0.0, loading: bool = False, hangs: bool = False, deferred: int = 0) -> None:
        self.busy_s, self.loading, self.hangs, self.deferred = busy_s, loading, hangs, deferred
        self.asked: list[str] = []
        self.started = time.monotonic()
        self._released = threading.Event()
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answers.asked.append(self.path)
                if answers.hangs:
                    answers._released.wait(30)
                    return
                is_busy = time.monotonic() - answers.started < answers.busy_s
                metrics = (
                    "# HELP llamacpp:requests_processing Number of requests processing.\n"
                    "# TYPE llamacpp:requests_processing gauge\n"
                    f"llamacpp:requests_processing {int(is_busy)}\n"
                    f"llamacpp:requests_deferred {answers.deferred}\n"
                    "llamacpp:n_tokens_max 0\n"
                )
                body = (metrics if self.path == "/metrics" else '{"status":"ok"}').encode()
                self.send_response(503 if answers.loading else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]

    def __enter__(self) -> "Server":
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()


def wait_until_idle(port: int, *, longest_s: int) -> float:
    """Run the hook as the kubelet would; seconds that it took."""
    command = launch(request_timeout_s=longest_s).pre_stop["exec"]["command"]
    script = command[2]
    started = time.monotonic()
    done = subprocess.run(["/bin/sh", "-c", script, "drain", str(longest_s), str(port), "1"], timeout=30)
    assert done.returncode == 0
    return time.monotonic() - started


def test_an_idle_pod_goes_after_routers_forgot_it_and_two_looks() -> None:
    with Server() as server:
        assert 2.5 < wait_until_idle(server.port, longest_s=20) < 8
    assert server.asked.count("/metrics") == 2


def test_a_pod_waits_for_its_last_request() -> None:
    with Server(busy_s=4) as server:
        assert 4 < wait_until_idle(server.port, longest_s=20) < 12


@pytest.mark.parametrize("trouble", [{"busy_s": 60}, {"deferred": 1}, {"hangs": True}], ids=lambda t: next(iter(t)))
def test_a_pod_waits_no_longer_than_one_request_may_take(trouble: dict[str, Any]) -> None:
    """A server that does not answer may be busy: it is waited for as well."""
    with Server(**trouble) as server:
        assert 5 < wait_until_idle(server.port, longest_s=6) < 13
    assert server.asked


def test_a_pod_that_still_loads_its_model_goes() -> None:
    with Server(loading=True) as server:
        assert wait_until_idle(server.port, longest_s=20) < 8


def test_a_pod_that_does_not_listen_yet_goes() -> None:
    server = Server()
    server._http.server_close()
    assert wait_until_idle(server.port, longest_s=20) < 8


# --- what is refused ---


def refuse(*args: str, path: str = "engine.args", value: object = None) -> Unplannable | None:
    wanted = parse(
        with_field(with_field(spec(), "engine.args", list(args)), path, value if value is not None else list(args))
    )
    source = parse_model_uri(wanted.model.uri)
    return ENGINE.refuse(Wanted(spec=wanted, source=source, layout=Layout(gpus=0), served_name="tiny", table=TABLE))


@pytest.mark.parametrize("flag", RESERVED)
def test_a_reserved_flag_is_refused_with_the_field_to_use(flag: str) -> None:
    assert TABLE is not None
    known = TABLE.find(flag)
    assert known is not None, "a reserved flag that the engine does not have protects nothing"
    answer = refuse(flag, *["1"] * known.values)
    assert answer is not None
    assert answer.code == "InvalidArgs"
    assert RESERVED[flag] in answer.message


@pytest.mark.parametrize("uri", SOURCES)
def test_every_flag_that_we_write_is_reserved(uri: str) -> None:
    """Otherwise a user's flag would silently win over ours: llama-server takes the last one."""
    assert TABLE is not None
    owned = {flag.name for name in RESERVED if (flag := TABLE.find(name))}
    options = EngineOptions(prefix_caching=True, kv_cache_dtype="q8_0")
    gpu = replace(PLAN, layout=Layout(gpus=1, resource_name="nvidia.com/gpu"))
    launched = launch(uri, options=options, plan=gpu, cpu_cores=1)
    written = {flag.name for word in launched.args if word.startswith("--") and (flag := TABLE.find(word))}
    assert written - owned == {"--flash-attn"}  # what the data type of the cache needs; a wish of the user's goes first


def env(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "value": "1"} for name in names]


@pytest.mark.parametrize("name", ["LLAMA_ARG_CTX_SIZE", "LLAMA_ARG_NEW", "LLAMA_API_KEY"])
def test_variables_that_are_flags_are_refused(name: str) -> None:
    answer = refuse(path="engine.env", value=env("HOME", name))
    assert answer is not None
    assert name in answer.message


def test_other_variables_are_the_users() -> None:
    names = ("HOME", "HF_TOKEN", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    assert refuse(path="engine.env", value=env(*names)) is None


@pytest.mark.parametrize("uri", ["hf://o/r", "oci://image", "oci://image#a.gguf"])
def test_repositories_and_images_need_no_file_name(uri: str) -> None:
    assert refuse(path="model.uri", value=uri) is None


@pytest.mark.parametrize(
    ("path", "value", "way_out"),
    [
        ("model", {"uri": "hf://o/r", "revision": "v1"}, "pvc://"),
        ("model.quantization", "fp8", "hf://ORG/REPO:Q4_K_M"),
        ("model.adapters", [{"name": "a", "uri": "hf://o/a"}], "engine.name vllm"),
        ("parallelism.tensor", 2, "accelerator.count: 2"),
        ("parallelism.expert", True, "Remove parallelism.expert"),
        ("workload.kind", "chat", "workload.concurrency"),
        ("engine.options.chunkedPrefill", True, "engine.args"),
        ("engine.options.speculative", {"method": "ngram", "tokens": 1}, "engine.args"),
        ("engine.options.kvOffload", "1Gi", "engine.args"),
        ("engine.options.apiServerCount", 2, "engine.args"),
        ("engine.options.structuredOutput", False, "Remove it"),
    ],
)
def test_what_only_other_engines_have_is_refused_with_the_way_out(path: str, value: Any, way_out: str) -> None:
    wanted = {"accelerator": {"product": "NVIDIA-L4"}} if path == "parallelism.tensor" else {}
    field = path if path != "model" else "model.revision"
    # This release would drop it without a word, whatever the version.
    for version in (ENGINE.default_version, "b1"):
        answer = planned(parse(with_field(with_field(spec(**wanted), path, value), "engine.version", version)))
        assert isinstance(answer, Unplannable)
        assert answer.code == "UnsupportedOption"
        assert field in answer.message
        assert way_out in answer.message


@pytest.mark.parametrize(
    ("path", "value"),
    [("parallelism.tensor", 1), ("parallelism.expert", False), ("engine.options.structuredOutput", True)],
)
def test_what_is_so_anyway_may_be_said(path: str, value: Any) -> None:
    wanted = with_field(spec(accelerator={"product": "NVIDIA-L4"}), path, value)
    assert isinstance(planned(parse(wanted)), Plan)
