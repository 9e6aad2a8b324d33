"""Every shape is one that HAProxy takes, without a warning."""

import subprocess
from pathlib import Path

import pytest

from draftmark.api import names
from draftmark.render.gateway_config import Backend, GatewayConfig
from tests.gateway.conftest import Gateway
from tests.gateway.stand_in import StandIn, send
from tests.golden_gateway import CASES

MANY = GatewayConfig(
    backends=tuple(
        Backend(revision=f"{number:08x}", address=f"10.96.1.{number}", limit=8, queue=8, weight=1)
        for number in range(1, 41)
    ),
    queue_timeout_s=120,
    request_timeout_s=600,
)


@pytest.mark.parametrize("case", [*CASES, "many"])
def test_haproxy_takes_every_shape(gateway: Gateway, case: str) -> None:
    config = MANY if case == "many" else CASES[case]
    gateway.mount(config)
    folder = gateway.place.config_folder
    checked = subprocess.run(
        [gateway.program, "-c", "-f", f"{folder}/limits.cfg", "-f", f"{folder}/haproxy.cfg"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


async def test_forty_revisions_are_told_and_changed(gateway: Gateway) -> None:
    """Long lines: the state is one, and so are the commands of a reloader."""
    files = gateway.mount(MANY)
    await gateway.start()
    state = await gateway.state()
    assert state
    assert len(state["revisions"]) == 40
    answer = gateway.command(files.data["commands"].strip().replace("\n", ";"))
    assert not answer.strip()


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
async def test_with_ipv6_both_families_answer(gateway: Gateway) -> None:
    async with StandIn(host="::1") as router:
        backend = Backend(revision="16efc5ee", address="::1", port=router.port, limit=8, queue=8, weight=1)
        gateway.mount(GatewayConfig(backends=(backend,), queue_timeout_s=5, request_timeout_s=5))
        await gateway.start()
        for host in ("127.0.0.1", "::1"):
            answer = await send(gateway.place.port, body={"seconds": 0}, host=host)
            assert (answer.status, answer.headers[names.HEADER_REVISION]) == (200, "16efc5ee")


async def test_a_start_has_the_limits_that_the_commands_set(gateway: Gateway) -> None:
    files = gateway.mount(CASES["canary"])
    await gateway.start()
    assert await gateway.is_at(files)
    assert _limits(gateway) == {"rev_16efc5ee": "8", "rev_a0b1c2d3": "4"}


def _limits(gateway: Gateway) -> dict[str, str]:
    """Limit of each router's server, as the running process has it."""
    lines = gateway.command("show stat -1 4 -1").strip().splitlines()
    head = lines[0].removeprefix("# ").split(",")
    rows = [dict(zip(head, line.split(","), strict=True)) for line in lines[1:]]
    return {row["pxname"]: row["slim"] for row in rows}
