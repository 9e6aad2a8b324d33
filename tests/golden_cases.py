"""The golden cases: a folder each, with what is given and what `draftmark render` and `explain` print for it."""

from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from draftmark.cli import main

FOLDER = Path(__file__).parent / "golden"


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """One folder: `input.yaml`, and `nodes.yaml` and `defaults.yaml` where there are some."""

    folder: Path

    def outputs(self) -> dict[Path, str]:
        """What is printed now, by the file that holds what is expected."""
        return {
            self.folder / "expected.yaml": self._run("render"),
            self.folder / "explain.txt": self._run("explain"),
        }

    def _run(self, command: str) -> str:
        words = [command, "-f", str(self.folder / "input.yaml")]
        for option in ("nodes", "defaults"):
            if (file := self.folder / f"{option}.yaml").is_file():
                words += [f"--{option}", str(file)]
        result = CliRunner().invoke(main, words)
        # A refusal is an output, too.
        return result.stdout + (f"# exit {result.exit_code}, stderr: {result.stderr}" if result.exit_code else "")


def golden_cases() -> list[GoldenCase]:
    return [GoldenCase(folder) for folder in sorted(FOLDER.iterdir()) if (folder / "input.yaml").is_file()]
