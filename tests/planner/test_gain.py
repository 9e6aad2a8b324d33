"""What today's plan gains over the one that runs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.plan import Layout, Memory, Plan, Reason
from draftmark.planner.gain import compare_plans

GIB = 2**30


def memory(room: int) -> Memory:
    """Of a GPU that has room for so many tokens of 1 KiB."""
    return Memory(
        gpu_bytes=80 * GIB, usable_bytes=40 * GIB + room * 1024, weight_bytes=40 * GIB, further_bytes=0, overhead_bytes=0,
        kv_needed_bytes=0, kv_bytes_per_token=1024, is_measured=True,
    )  # fmt: skip


def plan(**fields: Any) -> Plan:
    gpus, room = fields.pop("gpus", 4), fields.pop("room", 1000)
    whole = {
        "engine": "vllm", "version": "1", "image": "vllm:1", "served_name": "m", "max_context_length": 4096, "concurrency": 8,
        "layout": Layout(gpus=gpus, resource_name="nvidia.com/gpu"), "memory": memory(room) if room is not None else None,
    }  # fmt: skip
    return Plan(**{**whole, **fields})


SMALLER = Layout(gpus=4, resource_name="nvidia.com/gpu", product="NVIDIA-L4")
SGLANG = {"engine": "sglang", "reasons": (Reason(code="Engine", message="sglang: it keeps prefixes"),)}


@pytest.mark.parametrize(
    ("today", "told"),
    [
        ({}, ""),
        ({"gpus": 2}, "It gains: 2 GPUs per replica instead of 4."),
        ({"gpus": 1, "room": 600}, "It gains: 1 GPU per replica instead of 4. It loses: cache for 600 tokens instead of 1,000."),
        ({"max_context_length": 8192}, "It gains: 8,192 tokens per request instead of 4,096."),
        ({"room": 2000}, "It gains: cache for 2,000 tokens instead of 1,000."),
        # What comes with more GPUs is none of the plan's merits.
        ({"gpus": 8, "room": 5000}, "It loses: 8 GPUs per replica instead of 4."),
        ({"gpus": 8, "max_context_length": 8192},
         "It gains: 8,192 tokens per request instead of 4,096. It loses: 8 GPUs per replica instead of 4."),
        (SGLANG, "It gains: sglang: it keeps prefixes."),
        # Nothing is said of what is not known.
        ({"room": None}, ""),
        ({"layout": Layout(gpus=0), "room": None}, ""),
    ],
)  # fmt: skip
def test_what_is_gained_and_lost_is_told_with_both_numbers(today: dict[str, Any], told: str) -> None:
    assert str(compare_plans(plan(), plan(**today))) == told


@pytest.mark.parametrize(
    ("today", "is_only_loss"),
    [
        ({}, False),
        ({"gpus": 8}, True),
        # On the same GPUs it is not the cluster that has less.
        ({"max_context_length": 2048}, False),
        ({"layout": SMALLER, "max_context_length": 2048}, True),
        ({"gpus": 8, "max_context_length": 8192}, False),
        # A newer engine is worth a look, whatever it costs.
        ({"gpus": 8, "version": "2"}, False),
        ({"gpus": 8, "image": "mirror/vllm:1"}, False),
        ({"gpus": 8, **SGLANG}, False),
    ],
)
def test_what_nobody_would_want(today: dict[str, Any], is_only_loss: bool) -> None:
    assert compare_plans(plan(), plan(**today)).is_only_loss == is_only_loss


PLANS = st.builds(
    lambda gpus, context, room: plan(gpus=gpus, max_context_length=context, room=room),
    st.integers(1, 16), st.integers(1, 10**6), st.none() | st.integers(0, 10**6),
)  # fmt: skip


@given(PLANS, PLANS)
def test_there_and_back_nothing_is_gained(one: Plan, other: Plan) -> None:
    there, back = compare_plans(one, other), compare_plans(other, one)
    assert len(there.lost) >= len(back.gained)
    assert len(back.lost) >= len(there.gained)
    assert not (there.is_only_loss and back.is_only_loss)
    assert str(compare_plans(one, one)) == ""
