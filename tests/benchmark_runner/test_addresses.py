"""Where no load is sent."""

import socket
from typing import Any

import pytest

from draftmark.benchmark_runner.addresses import check_address
from draftmark.benchmark_runner.problem import RunRefused


def answering(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def found(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "fe80::1%eth0", "::ffff:169.254.169.254", "224.0.0.1"),
        # Metadata services that are not link-local.
        *("fd00:ec2::254", "100.100.100.200", "::ffff:100.100.100.200"),
    ],
)
def test_one_such_address_is_enough(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    answering(monkeypatch, "10.0.0.7", address)
    with pytest.raises(RunRefused, match="no load is sent"):
        check_address("http://vllm.default.svc:8000")


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.1.5", "fd00::7", "100.64.0.1", "100.100.100.201"])
def test_addresses_of_a_cluster_are_fine(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    answering(monkeypatch, address)
    check_address("http://vllm.default.svc:8000")


def test_tests_may_measure_themselves_and_still_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    check_address("http://127.0.0.1:8000", allow_loopback=True)
    answering(monkeypatch, "169.254.169.254")
    with pytest.raises(RunRefused):
        check_address("http://metadata", allow_loopback=True)


@pytest.mark.parametrize("url", ["https://vllm", "ftp://vllm", "http://", "http://user@vllm", "/etc/passwd"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(RunRefused, match=r"http://"):
        check_address(url)


def test_a_name_without_an_address_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    with pytest.raises(RunRefused, match=r"has no address: .* Create the Service, or correct target\.url") as refused:
        check_address("http://nowhere.default.svc")
    assert refused.value.refusal.code == "TargetUnreachable"
