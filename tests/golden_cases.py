"""The golden cases: a folder each, with what is given and what `draftmark render` and `explain` print for it.

What stands between clients and engines is long and nearly the same for every service, so it is in a file of its own,
`traffic.yaml`, and only for the cases that are about it: those that have such a file. The gateway's own configuration is
whole in one of them; tests/golden_gateway has more.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from draftmark.cli import main

FOLDER = Path(__file__).parent / "golden"

#: The case that shows haproxy.cfg.
WHOLE = "claim"
_HAPROXY_CFG = re.compile(r"^(  haproxy.cfg: )\|\n(?:    .*\n|\n)+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """One folder: `input.yaml`, and `nodes.yaml`, `defaults.yaml` and `traffic.yaml` where there are some."""

    folder: Path

    def outputs(self) -> dict[Path, str]:
        """What is printed now, by the file that holds what is expected."""
        engine, traffic = self.rendered()
        found = {self.folder / "expected.yaml": engine, self.folder / "explain.txt": self._run("explain")}
        if (file := self.folder / "traffic.yaml").is_file():
            found[file] = traffic
        return found

    def rendered(self) -> tuple[str, str]:
        """What is printed of the engines and the Service, and what of router, gateway and network policies."""
        text = self._run("render")
        documents = re.split(r"^(?=---$)", text, flags=re.MULTILINE)
        engine = [d for d in documents if _role(d) in ("engine", "service") and "\nkind: NetworkPolicy\n" not in d]
        traffic = "".join(d for d in documents if d not in engine)
        return "".join(engine), traffic if self.folder.name == WHOLE else _HAPROXY_CFG.sub(r"\1…\n", traffic)

    def _run(self, command: str) -> str:
        words = [command, "-f", str(self.folder / "input.yaml")]
        for option in ("nodes", "defaults"):
            if (file := self.folder / f"{option}.yaml").is_file():
                words += [f"--{option}", str(file)]
        result = CliRunner().invoke(main, words)
        # A refusal is an output, too.
        return result.stdout + (f"# exit {result.exit_code}, stderr: {result.stderr}" if result.exit_code else "")


def _role(document: str) -> str:
    """What an object is for, by its own label, which is the first one; a text without objects counts as an engine's."""
    found = re.search(r"draftmark.dev/role: (\w+)", document)
    return found[1] if found is not None else "engine"


def golden_cases() -> list[GoldenCase]:
    return [GoldenCase(folder) for folder in sorted(FOLDER.iterdir()) if (folder / "input.yaml").is_file()]
