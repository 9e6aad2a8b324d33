"""The simulation of `bench/comparisons.py` is made of blocks as real ones are, and reads the noise of real ones."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from bench.comparisons import CELLS, Noise, Served, measured_noise, simulate_blocks
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


@pytest.mark.parametrize(
    "noise",
    [
        Noise(request_ttft=0.1, request_itl=0.02, block=0.05, shared=0.6, degrees=50, drift=0.0, wave=0.0),
        Noise(request_ttft=0.08, request_itl=0.05, block=0.03, shared=0.2, degrees=50, drift=0.2, wave=0.0),
    ],
)
def test_noise_is_read_from_real_blocks(noise: Noise) -> None:
    served = Served(workload="chat", load=Load(concurrency=4), ttft_s=0.1, itl_s=0.01, tokens=20)
    rounds = 120
    level = noise.drift * np.arange(rounds) / rounds
    simulated = simulate_blocks(np.random.default_rng(2), served, noise, rounds, seconds=6.0, level=level)
    blocks = [as_block(requests, i, served) for i, requests in enumerate(simulated)]
    as_file = TypeAdapter(list[Block]).dump_json(blocks)
    seen = measured_noise(TypeAdapter(list[Block]).validate_json(as_file))
    assert seen.request_ttft == pytest.approx(noise.request_ttft, rel=0.1)
    assert seen.request_itl == pytest.approx(noise.request_itl, rel=0.1)
    assert seen.block == pytest.approx(noise.block, rel=0.25)
    assert seen.shared == pytest.approx(noise.shared, abs=0.25)
    assert seen.drift == pytest.approx(noise.drift, abs=0.03)


def test_noise_needs_blocks() -> None:
    with pytest.raises(ValueError, match="three blocks"):
        measured_noise([])
