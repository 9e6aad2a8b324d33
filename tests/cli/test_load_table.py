"""The rows of `top`, from plain data."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.cli.load_table import (
    Answers,
    EnginePage,
    GatewayState,
    Row,
    cells,
    columns,
    make_rows,
    plain_table,
    read_engine_page,
    read_state,
)
from draftmark.cli.overview import Seen
from tests.cli import world
from tests.cli.conftest import GOLDEN
from tests.cli.world import NEW, OLD

PAGE = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 1000
llamacpp:tokens_predicted_total 200
llamacpp:requests_processing 3
llamacpp:requests_deferred 1
llamacpp:n_busy_slots_per_decode 1.5
"""


def state(waiting: int, running: int) -> GatewayState:
    return read_state(
        json.dumps(
            {"config": "c", "runtime": "r", "revisions": {OLD: {"running": running, "waiting": waiting, "weight": 100}}}
        )
    )


def pods_of(role: str, seen: Seen) -> list[str]:
    return [p["metadata"]["name"] for p in seen.pods if f"-{role}-" in p["metadata"]["name"]]


def engine(tokens: float = 1200, at_s: float = 10, running: float = 3) -> EnginePage:
    return EnginePage(running=running, waiting=1, tokens=tokens, at_s=at_s)


def row(seen: Seen, answers: Answers, revision: str = OLD) -> Row:
    return next(r for r in make_rows(seen, answers) if r.revision == revision)


def answered() -> tuple[Seen, Answers]:
    """Two gateways and two engines say all that there is to say; the candidate's engine does not answer yet."""
    seen = world.changing()
    gateways, engines = pods_of("gateway", seen), pods_of("engine", seen)
    return seen, Answers(
        gateways=dict(zip(gateways, [state(3, 5), state(4, 2)], strict=True)),
        engines={engines[0]: engine(1400, 12), engines[1]: engine(2100, 12, running=4), engines[2]: None},
        engines_before={engines[0]: engine(1200, 10), engines[1]: engine(2000, 10), engines[2]: None},
    )


def test_the_table_is_as_reviewed() -> None:
    rows = [cells(r, has_namespaces=True) for r in make_rows(*answered())]
    assert plain_table(columns(has_namespaces=True), rows) == (GOLDEN / "top-changing.txt").read_text("utf-8")


def test_gateways_are_summed() -> None:
    found = row(*answered())
    assert (str(found.waiting), str(found.running), found.weight, found.ready, found.wanted) == ("7", "7", 100, 2, 2)
    # A revision that a gateway knows nothing of has nothing waiting there.
    assert str(row(*answered(), revision=NEW).waiting) == "0"


def test_a_gateway_that_does_not_answer_is_never_zero() -> None:
    seen = world.changing()
    first, second = pods_of("gateway", seen)
    assert str(row(seen, Answers(gateways={first: state(3, 5), second: None})).waiting) == "3+?"
    assert str(row(seen, Answers(gateways={first: None, second: None})).waiting) == "?"
    # There is a gateway, and no pod of it runs.
    assert str(row(seen, Answers()).waiting) == "?"


def test_a_service_of_the_first_release_has_no_gateway_to_ask() -> None:
    found = row(world.first_release(), Answers())
    assert (str(found.waiting), str(found.running), found.weight) == ("-", "-", None)
    assert (found.ready, found.wanted) == (2, 2)


def test_a_service_without_a_revision_has_a_row() -> None:
    bare = Seen(service=world.service(revisions=None))
    (found,) = make_rows(bare, Answers())
    assert cells(found, has_namespaces=False)[:5] == ["llama", "-", "-", "-", "0/0"]


def test_rates_are_between_two_readings() -> None:
    found = row(*answered())
    assert str(found.tokens_per_s) == "150"  # 100/s + 50/s
    assert (str(found.engine_running), str(found.engine_waiting)) == ("7", "2")


def test_a_rate_needs_two_readings_and_survives_a_restart() -> None:
    seen = world.changing()
    first, *_ = pods_of("engine", seen)
    assert str(row(seen, Answers(engines={first: engine()})).tokens_per_s) == "-"
    both = Answers(engines={first: engine(50, 11)}, engines_before={first: engine(9000, 10)})
    assert str(row(seen, both).tokens_per_s) == "50"


def test_an_engine_without_a_number_is_not_asked_for_it() -> None:
    seen = world.changing()
    first, *_ = pods_of("engine", seen)
    page = EnginePage(running=None, waiting=None, tokens=None, at_s=1)
    assert str(row(seen, Answers(engines={first: page})).engine_running) == "-"
    assert str(row(seen, Answers(engines={first: None})).engine_running) == "?"


def test_metrics_are_read() -> None:
    assert read_engine_page(PAGE, 7) == EnginePage(running=3, waiting=1, tokens=1200, at_s=7)
    labelled = 'llamacpp:requests_processing{model="a b"} 2\nllamacpp:requests_processing{model="c"} 1 1700000000000\n'
    assert read_engine_page(labelled, 7).running == 3
    vllm = 'vllm:num_requests_running{engine="0"} 4\nvllm:num_requests_waiting{engine="0"} 2\n'
    vllm += "vllm:prompt_tokens_total 10\nvllm:generation_tokens_total 5\n"
    assert read_engine_page(vllm, 7) == EnginePage(running=4, waiting=2, tokens=15, at_s=7)
    sglang = 'sglang:num_running_reqs{tp_rank="0"} 4\nsglang:num_queue_reqs{tp_rank="0"} 2\n'
    sglang += 'sglang:num_grammar_queue_reqs{tp_rank="0"} 1\nsglang:prompt_tokens_total{is_streaming="true"} 10\n'
    sglang += 'sglang:generation_tokens_total{is_streaming="true"} 5\n'
    assert read_engine_page(sglang, 7) == EnginePage(running=4, waiting=3, tokens=15, at_s=7)
    assert read_engine_page("<html>", 7) == EnginePage(running=None, waiting=None, tokens=None, at_s=7)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", '{"revisions": 1}', '{"revisions": {"a": {}}}', '{"revisions": {"a": {"running": "x"}}}'],
)
def test_what_is_no_state_page_is_no_zero(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_state(text)


@given(text=st.text())
def test_no_metrics_page_is_a_traceback(text: str) -> None:
    read_engine_page(text, 0)
