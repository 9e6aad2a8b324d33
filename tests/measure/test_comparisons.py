"""The simulation of `bench/comparisons.py` is made of blocks as real ones are, and reads the noise of real ones."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from bench.comparisons import (
    CELLS,
    RECORD,
    Noise,
    Record,
    Served,
    measured_levels,
    measured_noise,
    nearest,
    simulate_blocks,
)
from draftmark.measure.order import Load
from draftmark.measure.rows import Requests, medians_and_rate, read_block
from draftmark.measure.samples import Block
from tests.measure.seen import sample


def as_block(requests: Requests, round_: int, served: Served) -> Block:
    start = 100.0 * round_
    return Block(
        target="target",
        workload=served.workload,
        load=served.load.label,
        round=round_,
        began=start,
        ended=start + requests.seconds,
        samples=tuple(
            sample(
                start + sent,
                first=start + first,
                last=start + last,
                output_tokens=int(tokens),
                asked_tokens=int(tokens),
            )
            for sent, first, last, tokens in zip(
                requests.sent, requests.first, requests.last, requests.tokens, strict=True
            )
        ),
    )


def test_simulated_blocks_say_the_same_as_real_ones() -> None:
    served = CELLS[1]
    (simulated,) = simulate_blocks(np.random.default_rng(1), served, Noise(), 1, seconds=20.0)
    assert len(simulated.sent) > 30
    real = medians_and_rate(read_block(as_block(simulated, 3, served)), served.load)
    assert real == pytest.approx(medians_and_rate(simulated, served.load), rel=1e-9)


#: Tails and waves are not read from blocks: light ones, so that few blocks show the other figures.
_FOUND: dict[str, float] = {"degrees": 50, "wave": 0.0}


@pytest.mark.parametrize(
    "noise",
    [
        Noise(request_ttft=0.1, request_itl=0.02, block_ttft=0.05, block_itl=0.05, shared=0.6, drift=0.0, **_FOUND),
        Noise(request_ttft=0.08, request_itl=0.05, block_ttft=0.03, block_itl=0.03, shared=0.2, drift=0.2, **_FOUND),
        Noise(request_ttft=0.2, request_itl=0.01, block_ttft=0.08, block_itl=0.01, shared=0.0, drift=0.1, **_FOUND),
    ],
)
def test_noise_is_read_from_real_blocks(noise: Noise) -> None:
    served = Served(workload="chat", load=Load(concurrency=4), ttft_s=0.1, itl_s=0.01, tokens=20)
    rounds = 300
    level = noise.drift * np.arange(rounds) / rounds
    simulated = simulate_blocks(np.random.default_rng(2), served, noise, rounds, seconds=6.0, level=level)
    blocks = [as_block(requests, i, served) for i, requests in enumerate(simulated)]
    as_file = TypeAdapter(list[Block]).dump_json(blocks)
    seen = measured_noise(TypeAdapter(list[Block]).validate_json(as_file))
    assert seen.request_ttft == pytest.approx(noise.request_ttft, rel=0.1)
    assert seen.request_itl == pytest.approx(noise.request_itl, rel=0.1)
    assert seen.block_ttft == pytest.approx(noise.block_ttft, rel=0.2)
    assert seen.block_itl == pytest.approx(noise.block_itl, rel=0.2)
    assert seen.shared == pytest.approx(noise.shared, abs=0.25)
    assert seen.drift == pytest.approx(noise.drift, abs=0.03)


def test_each_workload_and_load_has_its_own_noise() -> None:
    rng = np.random.default_rng(3)
    places = {
        (workload, concurrency): Noise(
            request_ttft=request, request_itl=0.01, block_ttft=0.01, block_itl=0.01, **_FOUND
        )
        for workload, concurrency, request in (
            ("short", 1, 0.02),
            ("short", 16, 0.2),
            ("long", 1, 0.05),
            ("long", 16, 0.1),
        )
    }
    blocks: list[Block] = []
    for (workload, concurrency), noise in places.items():
        served = Served(
            workload=workload, load=Load(concurrency=concurrency), ttft_s=0.1, itl_s=0.01, tokens=1 + concurrency
        )
        simulated = simulate_blocks(rng, served, noise, 5, seconds=5.0)
        blocks += [as_block(requests, i, served) for i, requests in enumerate(simulated)]
    levels = measured_levels(blocks)
    assert [(level.workload, level.load, level.tokens) for level in levels] == [
        (workload, f"concurrency {concurrency}", 1 + concurrency) for workload, concurrency in places
    ]
    for level, noise in zip(levels, places.values(), strict=True):
        assert level.noise.request_ttft == pytest.approx(noise.request_ttft, rel=0.15)
    # Those of what is simulated: few requests as the fewest that were measured, more as the most.
    assert [round(nearest(levels, cell).noise.request_ttft, 2) for cell in CELLS] == pytest.approx(
        [0.02, 0.2, 0.05, 0.1, 0.02, 0.2], rel=0.15
    )


def test_the_record_has_noise_for_everything_that_is_simulated() -> None:
    record = TypeAdapter(Record).validate_json(RECORD.read_bytes())
    for cell in CELLS:
        assert nearest(record.levels, cell).noise.request_ttft > 0


def test_noise_needs_blocks() -> None:
    with pytest.raises(ValueError, match="three blocks"):
        measured_noise([])
