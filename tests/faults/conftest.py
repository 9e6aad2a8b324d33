"""The scenarios without faults, once for all tests."""

import pytest

from tests.faults.operator_process import warm_up
from tests.faults.scenarios import Scenarios


@pytest.fixture(scope="session")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Scenarios:
    warm_up()
    return Scenarios(tmp_path_factory.mktemp("faults"))
