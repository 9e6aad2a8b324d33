"""What is said of known models on known nodes. `python -m tests.update_golden` writes the files anew; read the difference."""

import pytest

from tests.planner.plan_cases import CASES, FOLDER, PlanCase


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_plan_reads_as_expected(case: PlanCase) -> None:
    assert case.text() == case.file.read_text("utf-8")


def test_no_file_is_left_over() -> None:
    assert {case.file for case in CASES} == set(FOLDER.iterdir())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_input_gives_the_same_plan(case: PlanCase) -> None:
    assert case.plan() == case.plan()
