import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.render.gateway_config import (
    Backend,
    GatewayConfig,
    GatewayPlace,
    cumulative_bounds,
    hard_stop_s,
    render_gateway_config,
)
from draftmark.render.templates import render_text
from tests.golden_gateway import CASES, FOLDER

ADDRESSES = st.one_of(st.none(), st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))
BACKENDS = st.builds(
    Backend,
    revision=st.text("0123456789abcdef", min_size=8, max_size=8),
    address=ADDRESSES,
    port=st.integers(1, 65535),
    limit=st.integers(1, 10_000),
    queue=st.integers(0, 10_000),
    weight=st.integers(0, 1_000_000),
)
CONFIGS = st.builds(
    GatewayConfig,
    backends=st.lists(BACKENDS, max_size=6, unique_by=lambda backend: backend.revision).map(tuple),
    queue_timeout_s=st.integers(1, 3600),
    request_timeout_s=st.integers(1, 86400),
)


@pytest.mark.parametrize("case", CASES)
def test_files_are_the_golden_ones(case: str) -> None:
    files = {file.name: file.read_text("utf-8") for file in (FOLDER / case).iterdir()}
    assert render_gateway_config(CASES[case]).data == files, "python -m tests.golden_gateway writes them anew"


@pytest.mark.parametrize(
    ("weights", "bounds"),
    [
        ([], []),
        ([0, 0], [0, 0]),
        ([1], [1000]),
        ([90, 10], [900, 1000]),
        ([0, 5], [0, 1000]),
        ([100, 0], [1000, 1000]),
        ([1, 1, 1], [333, 666, 1000]),
        # Too small for one draw in a thousand, and still not none.
        ([1, 1_000_000], [1, 1000]),
        ([1_000_000, 0, 1], [999, 999, 1000]),
        ([1_000_000, 1, 0, 1], [998, 999, 999, 1000]),
    ],
)
def test_bounds_follow_weights(weights: list[int], bounds: list[int]) -> None:
    assert cumulative_bounds(weights) == bounds


@given(st.lists(st.integers(0, 10**9), max_size=50))
def test_bounds_give_every_weight_its_share(weights: list[int]) -> None:
    bounds = cumulative_bounds(weights)
    shares = [after - before for before, after in zip([0, *bounds], bounds, strict=False)]
    total = sum(weights)
    assert sum(shares) == (1000 if total else 0)
    for weight, share in zip(weights, shares, strict=True):
        assert (share > 0) == (weight > 0)
        # One draw of rounding at each end, and what small weights are given.
        assert not total or abs(share - 1000 * weight / total) <= 1 + len(weights)


@given(CONFIGS)
def test_weights_and_limits_are_no_part_of_the_shape(config: GatewayConfig) -> None:
    files = render_gateway_config(config)
    other = replace(
        config,
        backends=tuple(
            replace(backend, weight=backend.weight + 1, limit=backend.limit + 1, queue=backend.queue + 7)
            for backend in config.backends
        ),
    )
    changed = render_gateway_config(other)
    assert changed.data["haproxy.cfg"] == files.data["haproxy.cfg"]
    assert changed.config_version == files.config_version
    if config.backends:
        assert changed.runtime_version != files.runtime_version


@given(CONFIGS)
def test_files_say_their_versions_and_are_the_same_for_the_same_input(config: GatewayConfig) -> None:
    files = render_gateway_config(config)
    assert files == render_gateway_config(config)
    assert f"\n  description {files.config_version}\n" in files.data["haproxy.cfg"]
    assert f"\nversion {files.runtime_version}\n" in files.data["weights.map"]
    # The last command says that the ones before it were taken.
    assert (
        files.data["commands"].splitlines()[-1] == f"set map /etc/draftmark/weights.map version {files.runtime_version}"
    )


@given(CONFIGS)
def test_commands_reach_what_a_start_would_read(config: GatewayConfig) -> None:
    data = render_gateway_config(config).data
    keys = dict(line.split(" ") for line in data["weights.map"].splitlines() if not line.startswith("#"))
    commands = [line.split(" ") for line in data["commands"].splitlines()]
    assert {words[3]: words[4] for words in commands if words[1] == "map"} == keys
    limits = dict(
        re.findall(r"^defaults limit_(\w+)\n  mode http\n  default-server maxconn (\d+)$", data["limits.cfg"], re.M)
    )
    assert limits.keys() == {backend.revision for backend in config.backends}
    for words in commands:
        if words[1] == "maxconn":
            assert limits[words[3].removeprefix("rev_").removesuffix("/router")] == words[4]


@given(CONFIGS)
def test_every_error_is_json(config: GatewayConfig) -> None:
    text = render_gateway_config(config).data["haproxy.cfg"]
    errors = re.findall(r"'(\{\"error\".*?\})'", text)
    assert len(errors) > 10
    for error in errors:
        assert json.loads(error)["error"].keys() == {"message", "type", "param", "code"}
    [state] = re.findall(r"lf-string '(.*?)'", text)
    assert json.loads(re.sub(r'(?<!")%\[[^\]]*\]', "0", state))["revisions"].keys() == {
        backend.revision for backend in config.backends
    }


@given(CONFIGS)
def test_files_are_plain_lines(config: GatewayConfig) -> None:
    for text in render_gateway_config(config).data.values():
        assert text.endswith("\n")
        assert text.isascii()
        assert not re.search(r"[^\n -~]", text)


@pytest.mark.parametrize("value", ["", "a b", "a\nb", "'", '"', "%[x]", "#", "a,b", "{", "é", None, True, 1.5, ["a"]])
def test_a_value_that_could_mean_something_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="neither"):
        render_text("gateway/weights.map.j2", version=value, bounds=0, backends=())


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"queue": -1},
        {"weight": -1},
        {"address": "router.svc"},
        {"address": "None"},
        {"address": ""},
        {"revision": "16EFC5EE"},
        {"revision": "16efc5ee\n"},
    ],
)
def test_a_backend_that_haproxy_would_misread_is_refused(wrong: dict[str, object]) -> None:
    good: dict[str, object] = {"revision": "16efc5ee", "address": "10.0.0.1", "limit": 1, "queue": 0, "weight": 0}
    with pytest.raises(ValueError, match=r"."):
        Backend(**{**good, **wrong})  # type: ignore[arg-type]


def test_a_revision_has_one_backend() -> None:
    backend = Backend(revision="16efc5ee", address=None, limit=1, queue=0, weight=0)
    with pytest.raises(ValueError, match="16efc5ee, 16efc5ee"):
        GatewayConfig(backends=(backend, backend), queue_timeout_s=1, request_timeout_s=1)


def test_the_grace_covers_the_longest_request() -> None:
    config = GatewayConfig(backends=(), queue_timeout_s=120, request_timeout_s=600)
    assert hard_stop_s(config) == 900
    assert "hard-stop-after 900s" in render_gateway_config(config).data["haproxy.cfg"]


def test_folders_and_ports_can_be_others() -> None:
    place = GatewayPlace(config_folder="/c", run_folder="/r", host="127.0.0.1", port=1, inner_port=2, metrics_port=3)
    text = render_gateway_config(CASES["canary"], place).data["haproxy.cfg"]
    assert re.findall(r"bind (\S+)", text) == ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]
    assert "/etc/" not in text
    assert "/run/" not in text
