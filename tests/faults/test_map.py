"""The table in README.md names every case, and tests that exist."""

import re
from pathlib import Path

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_CASES = range(1, 32)


def test_each_case_has_tests_that_exist() -> None:
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", (_HERE / "README.md").read_text("utf-8"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(_CASES)
    for number, tests in rows:
        named = re.findall(r"`([^`]+\.py)::(\w+)`", tests)
        assert named, f"case {number} has no test"
        for file, function in named:
            path = _ROOT / file if file.startswith("tests/") else _HERE / file
            assert re.search(rf"^(async )?def {function}\(", path.read_text("utf-8"), re.MULTILINE), (file, function)
