"""Orders as the operator writes them, small."""

from typing import Any

from draftmark.measure.order import (
    Counters,
    FromClaim,
    Lengths,
    Load,
    Order,
    OrderedTarget,
    OrderedWorkload,
)

#: Metrics of vLLM, which the stand-in has, too.
VLLM_COUNTERS = Counters(
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    prompt_tokens="vllm:prompt_tokens_total",
    cached_prompt_tokens="vllm:prompt_tokens_cached_total",
    output_tokens="vllm:generation_tokens_total",
    kv_use="vllm:kv_cache_usage_perc",
    started="process_start_time_seconds",
)


def a_target(**changes: Any) -> OrderedTarget:
    return OrderedTarget(
        **{
            "label": "target",
            "url": "http://vllm:8000",
            "model": "tiny",
            "tokenizer": FromClaim(path="/model"),
            **changes,
        }
    )


def a_workload(**changes: Any) -> OrderedWorkload:
    return OrderedWorkload(**{"name": "short", "prompt": Lengths(mean=20), "output": Lengths(mean=10), **changes})


def an_order(**changes: Any) -> Order:
    return Order(
        **{
            "benchmark": "bench",
            "namespace": "default",
            "uid": "uid-1",
            "job": "bench-job",
            "targets": (a_target(),),
            "workloads": (a_workload(),),
            "loads": (Load(concurrency=1),),
            "warm_up_s": 10.0,
            "duration_s": 60.0,
            "repetitions": 3,
            "result_config_map": "bench-result",
            **changes,
        }
    )
