"""Write the golden files anew: `python -m tests.update_golden`. Read the difference before you commit it."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "operator"))

from tests import golden_benchmark  # noqa: E402
from tests.capability_page import PAGE, page  # noqa: E402
from tests.golden_cases import golden_cases  # noqa: E402, the package lies in operator/
from tests.measure.golden_report_cases import report_files  # noqa: E402
from tests.planner.plan_cases import CASES, FOLDER  # noqa: E402


def main() -> None:
    for case in golden_cases():
        for file, text in case.outputs().items():
            if not file.is_file() or file.read_text("utf-8") != text:
                file.write_text(text, "utf-8")
                print(f"wrote {file.relative_to(ROOT)}")
    for benchmark in golden_benchmark.CASES:
        for file, text in golden_benchmark.outputs(benchmark).items():
            file.parent.mkdir(exist_ok=True)
            if not file.is_file() or file.read_text("utf-8") != text:
                file.write_text(text, "utf-8")
                print(f"wrote {file.relative_to(ROOT)}")
    FOLDER.mkdir(exist_ok=True)
    for plan in CASES:
        if not plan.file.is_file() or plan.file.read_text("utf-8") != plan.text():
            plan.file.write_text(plan.text(), "utf-8")
            print(f"wrote {plan.file.relative_to(ROOT)}")
    for file, text in report_files():
        if not file.is_file() or file.read_text("utf-8") != text:
            file.write_text(text, "utf-8")
            print(f"wrote {file.relative_to(ROOT)}")
    if not PAGE.is_file() or PAGE.read_text("utf-8") != page():
        PAGE.write_text(page(), "utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
