"""Ports of test processes that run side by side."""

from itertools import combinations

from e2e.ports import free_ports, share_of


def test_workers_have_shares_of_their_own() -> None:
    shares = [set(share_of(worker)) for worker in (None, *(f"gw{n}" for n in range(15)))]
    assert all(not one & other for one, other in combinations(shares, 2))
    assert min(map(len, shares)) > 800


def test_a_port_is_given_once_before_all_of_the_share_are() -> None:
    given = [port for _ in range(100) for port in free_ports(2)]
    assert len(set(given)) == len(given)
    assert [port for _ in range(1000) for port in free_ports(1)]
