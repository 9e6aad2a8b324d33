"""What a service costs beside its engine: the figures of docs/fleet-cost.md."""

from collections import Counter
from typing import Final

import pytest

from draftmark.api import names
from draftmark.cluster.kinds import PODS
from e2e.cluster.choose import Own
from tests.e2e.api import Namespace
from tests.e2e.installed import Installed
from tests.e2e.processes import memory_mib

#: MiB that an idle pod of each role may take: half as much again as `make bench` saw of one that shares its pages with no
#: other, 28 and 52 MiB. A guard against silent growth.
BOUNDS: Final = {names.ROLE_GATEWAY: 42, names.ROLE_ROUTER: 78}


def test_an_idle_service_costs_no_more_than_the_documentation_says(
    home: Namespace, installed: Installed, measured: list[str]
) -> None:
    if not isinstance(installed.target, Own):
        pytest.skip("the processes are only in reach on a node that we made")
    home.wait_until_ready("picture")
    for role, bound in BOUNDS.items():
        [pod] = home.pods("picture", role)
        found = memory_mib(pod)
        same = len(installed.api.list(PODS, None, **{names.LABEL_ROLE: role}))
        measured.append(f"memory of an idle {role} pod (PSS, MiB; {same} pods of the role on the node): {found}")
        assert 1 < sum(found.values()) <= bound
    objects = Counter(kind.kind for kind, _ in home.children("picture"))
    measured.append(f"objects of a service with one replica: {dict(objects)}")
    assert sum(objects.values()) == 13
