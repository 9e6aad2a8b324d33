"""Manifests and explanations of whole services, which reviewers read."""

import pytest

from draftmark.render.yaml_io import load_manifests
from tests.golden_cases import GoldenCase, golden_cases

CASES = golden_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.folder.name)
def test_output_is_as_expected(case: GoldenCase) -> None:
    for file, text in case.outputs().items():
        expected = file.read_text("utf-8") if file.is_file() else ""
        assert text == expected, f"{file.name} differs. If it should: python -m tests.update_golden, and read the diff."


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.folder.name)
def test_expected_manifests_are_complete(case: GoldenCase) -> None:
    engine, traffic = case.rendered()
    kinds = [[m["kind"] for m in load_manifests(text)] for text in (engine, traffic)]
    if engine.startswith("# exit 2"):
        assert kinds == [[], []]
        return
    router = [] if "code: NoRouter" in engine else ["Deployment"]
    assert kinds == [
        ["ControllerRevision", "ServiceAccount", "Deployment", "Service"],
        ["ServiceAccount", "RoleBinding", *router, "Service", "ConfigMap", "Deployment", *["NetworkPolicy"] * 3],
    ]


def test_there_are_cases() -> None:
    assert len(CASES) >= 20
    assert len([case for case in CASES if (case.folder / "traffic.yaml").is_file()]) >= 8
