import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.render.gateway_config import POST_PATHS, GatewayPlace
from draftmark.render.model_gateway_config import (
    ModelGatewayConfig,
    Route,
    is_routable,
    render_model_gateway_config,
    service_timeout_s,
)

MODELS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,252}", fullmatch=True)
SERVICES = st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
ROUTES = st.builds(
    Route,
    model=MODELS,
    service=SERVICES,
    address=st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)),
    timeout_s=st.integers(1, 100_000),
    created=st.integers(0, 2**33),
)
CONFIGS = st.builds(
    ModelGatewayConfig,
    routes=st.lists(ROUTES, max_size=6, unique_by=(lambda r: r.model, lambda r: r.service)).map(tuple),
    max_body_bytes=st.integers(64 * 1024, 16 * 1024**2),
)


def route(model: str = "m", service: str = "s", **more: object) -> Route:
    return Route(**{"model": model, "service": service, "address": "10.0.0.1", "timeout_s": 690, **more})  # type: ignore[arg-type]


def config(*routes: Route, max_body_bytes: int = 1024**2) -> ModelGatewayConfig:
    return ModelGatewayConfig(routes=routes, max_body_bytes=max_body_bytes)


@given(CONFIGS)
def test_files_say_their_version_and_are_the_same_for_the_same_input(config: ModelGatewayConfig) -> None:
    files = render_model_gateway_config(config)
    turned = ModelGatewayConfig(routes=config.routes[::-1], max_body_bytes=config.max_body_bytes)
    assert files == render_model_gateway_config(turned)
    assert files.config_version == files.runtime_version
    assert f"\n  description {files.config_version}\n" in files.data["haproxy.cfg"]
    assert f'{{"config":"{files.config_version}","runtime":"{files.config_version}","revisions":{{}}}}' in files.data[
        "haproxy.cfg"
    ]  # fmt: skip


@given(CONFIGS)
def test_every_route_is_listed_mapped_and_has_a_backend(config: ModelGatewayConfig) -> None:
    data = render_model_gateway_config(config).data
    lines = [line.split(" ") for line in data["models.map"].splitlines() if not line.startswith("#")]
    assert dict(lines) == {r.model: f"{r.service}/{r.created}" for r in config.routes}
    listed = json.loads(data["models.json"])
    assert listed["object"] == "list"
    assert [m["id"] for m in listed["data"]] == sorted(r.model for r in config.routes)
    backends = re.findall(r"^backend model_(\S+) from service$", data["haproxy.cfg"], re.M)
    assert sorted(backends) == sorted(r.service for r in config.routes)


@given(CONFIGS)
def test_every_error_is_json(config: ModelGatewayConfig) -> None:
    text = render_model_gateway_config(config).data["haproxy.cfg"]
    errors = re.findall(r"'(\{\"error\".*?\})'", text)
    assert len(errors) > 10
    for error in errors:
        assert json.loads(error)["error"].keys() == {"message", "type", "param", "code"}


@given(CONFIGS)
def test_files_are_plain_lines(config: ModelGatewayConfig) -> None:
    for name, text in render_model_gateway_config(config).data.items():
        assert text.endswith("\n") or name == "commands"
        assert text.isascii()
        assert not re.search(r"[^\n -~]", text)


def test_any_change_is_another_version() -> None:
    changed = [
        config(),
        config(route()),
        config(route(model="n")),
        config(route(service="t")),
        config(route(address="10.0.0.2")),
        config(route(timeout_s=1)),
        config(route(created=5)),
        config(route(), max_body_bytes=2 * 1024**2),
    ]
    versions = [render_model_gateway_config(each).config_version for each in changed]
    assert len(set(versions)) == len(changed)


def test_the_answer_to_an_unknown_model_names_a_bounded_number() -> None:
    few = render_model_gateway_config(config(route("a"), route("b", "t"))).data["haproxy.cfg"]
    assert "Served are: a, b." in few
    many = config(*(route(f"{n:04}{'x' * 40}", f"s{n}") for n in range(1000)))
    files = render_model_gateway_config(many).data
    [told] = re.findall(r"Served are: ([^.]*), and (\d+) more", files["haproxy.cfg"])
    assert len(told[0]) < 2500
    assert told[0].count(",") + 1 + int(told[1]) == 1000
    assert len(json.loads(files["models.json"])["data"]) == 1000
    # All of it is one ConfigMap, and those end at 1 MiB.
    assert sum(map(len, files.values())) < 600_000


def test_a_list_that_is_longer_than_any_body_fits_into_a_buffer() -> None:
    names = (f"{n:04}{'x' * 240}" for n in range(1000))
    files = render_model_gateway_config(
        config(*(route(name, f"s{n}") for n, name in enumerate(names)), max_body_bytes=64 * 1024)
    ).data
    [buffer] = re.findall(r"tune.bufsize (\d+)", files["haproxy.cfg"])
    assert int(buffer) > len(files["models.json"]) + 16384


def test_the_longest_service_bounds_what_a_client_and_an_old_process_may_take() -> None:
    text = render_model_gateway_config(config(route(timeout_s=100), route("n", "t", timeout_s=7000))).data[
        "haproxy.cfg"
    ]
    assert "timeout client 7000s" in text
    assert "hard-stop-after 7130s" in text
    assert re.findall(r"timeout server (\d+)s", text) == ["100", "7000"]
    assert service_timeout_s(30, 600) == 690


def test_the_paths_are_those_of_every_gateway() -> None:
    text = render_model_gateway_config(config()).data["haproxy.cfg"]
    assert re.findall(r"acl is_post path (\S+)", text) == list(POST_PATHS)


def test_folders_and_ports_can_be_others() -> None:
    place = GatewayPlace(config_folder="/c", run_folder="/r", host="127.0.0.1", port=1, inner_port=2, metrics_port=3)
    text = render_model_gateway_config(config(route()), place).data["haproxy.cfg"]
    assert re.findall(r"bind (\S+)", text) == ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]
    assert "/etc/" not in text
    assert "/run/" not in text


@pytest.mark.parametrize(
    "wrong",
    [{"model": ""}, {"model": "a b"}, {"model": "a\n"}, {"model": "#a"}, {"model": "a'"}, {"model": "x" * 254},
     {"service": "A"}, {"service": "a b"}, {"address": "host"}, {"address": "None"}],
)  # fmt: skip
def test_a_route_that_haproxy_would_misread_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        route(**wrong)  # type: ignore[arg-type]


def test_names_and_services_stand_once() -> None:
    with pytest.raises(ValueError, match="m, m"):
        config(route("m", "a"), route("m", "b"))
    with pytest.raises(ValueError, match="s, s"):
        config(route("m"), route("n"))


@given(st.text(max_size=300))
def test_routable_is_what_the_schema_lets_in(name: str) -> None:
    allowed = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]*", name) is not None and len(name) <= 253
    assert is_routable(name) == allowed
