"""The planner's sums against what llama-server says of itself."""

import re
from pathlib import Path

from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.cluster.kinds import INFERENCE_SERVICES
from draftmark.engines.engine import Step
from draftmark.engines.llama_cpp import CPU_PROCESS_BYTES, PORT, LlamaCpp
from draftmark.facts.gguf_header import GgufHeader, facts_from_gguf, read_gguf_header
from draftmark.facts.model_memory import WeightBytes, kv_bytes_per_token, weight_bytes
from draftmark.facts.models import ModelFacts
from e2e import tiny_gguf
from e2e.cluster.choose import Own
from tests.e2e.api import Namespace
from tests.e2e.installed import Installed, inference_service
from tests.e2e.processes import most_resident_bytes

#: A service whose engine says more than others.
NAME = "wordy"
_MIB = 2**20
#: llama-server prints two decimals of a MiB.
_ROUNDED = 0.005 * _MIB


def test_weights_and_cache_are_as_large_as_llama_server_says(
    home: Namespace, installed: Installed, tmp_path: Path, measured: list[str]
) -> None:
    facts = _facts(tmp_path)
    home.apply(inference_service(NAME, engine={"args": ["--verbosity", "4", "--cache-ram", "64"]}))
    plan = home.wait_until_settled(NAME)["status"]["plan"]
    (pod,) = home.pods(NAME)
    log = home.tools.kubectl("logs", pod["metadata"]["name"], f"--namespace={home.name}", "--container=engine")
    weights = weight_bytes(facts)
    assert isinstance(weights, WeightBytes)
    tokens = plan["maxContextLength"] * plan["concurrency"]
    cache = tokens * kv_bytes_per_token(facts, "f16")
    told_weights, told_cache = _buffer(log, "model"), _buffer(log, "KV")
    measured.append(
        f"llama-server, tiny model: weights {told_weights / _MIB:.2f} MiB, counted {weights.total / _MIB:.2f}; "
        f"cache of {tokens} tokens {told_cache / _MIB:.2f} MiB, counted {cache / _MIB:.2f}"
    )
    assert abs(told_cache - cache) <= _ROUNDED
    assert abs(told_weights - weights.total) <= _ROUNDED
    assert re.search(r"prompt cache.*\b64(\.0+)? MiB", log), "the flag that keeps prompts within a container's limit"
    if isinstance(installed.target, Own):  # elsewhere the process is not in reach
        for number in range(4):  # more than there are slots, so that prompts are kept as well
            body = {"prompt": f"{number} is what you tell " * 20, "n_predict": 4}
            assert installed.api.to_pod(pod, PORT, "/completion", body).is_success
        service = inference_service(NAME)["spec"] | {"engine": {"name": "llama-cpp"}}
        use = LlamaCpp().cpu_memory_use(
            InferenceServiceSpec.model_validate(service), facts, Step(requests=2, tokens=None, tensor=1, pipeline=1)
        )
        assert use is not None
        counted, seen = weights.total + cache + use.overhead_bytes, most_resident_bytes(pod)
        buffers, told_buffers = use.overhead_bytes - CPU_PROCESS_BYTES, _buffer(log, "compute")
        measured.append(
            f"llama-server on CPU, tiny model: resident at most {seen / _MIB:.1f} MiB, counted {counted / _MIB:.1f}; buffers of a "
            f"step {told_buffers / _MIB:.2f} MiB, counted {buffers / _MIB:.2f}"
        )
        # The sum is what a limit is held against: it may be too large, and must not be too small.
        assert seen <= counted
    home.api.delete(INFERENCE_SERVICES, home.name, NAME)


def _facts(folder: Path) -> ModelFacts:
    header = read_gguf_header(tiny_gguf.write(folder / "tiny.gguf").read_bytes())
    assert isinstance(header, GgufHeader)
    facts = facts_from_gguf(header)
    assert isinstance(facts, ModelFacts)
    return facts


def _buffer(log: str, what: str) -> float:
    """Bytes of all buffers of a kind, as the log says."""
    found = re.findall(rf"{what} buffer size *= *([0-9.]+) MiB", log)
    assert found, "\n".join(line for line in log.splitlines() if "MiB" in line)[:4000]
    return sum(float(size) for size in found) * _MIB
