"""Write an engine's flag table from the engine itself.

    python -m e2e.flag_tables --program "chroot /tmp/llama-root llama-server" \\
        --source "Debian package llama.cpp 1:0.7.0+dfsg-2" --out operator/draftmark/engines/flags/llama-cpp-v0.7.0.json

`llama-server --help` names the flags; what their values are is asked of the parser itself: with `--version` behind
it, a flag is parsed and nothing is loaded, and a wrong value is answered by the number function that failed (`stoi`).
So the table never refuses what the program takes.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

#: Column where descriptions begin in `--help`. Source: output of v0.7.0.
DESCRIPTION_COLUMN: Final = 40
#: What an on/off flag may also take without its help saying so.
BOOLEAN_WORDS: Final = ("on", "off", "auto", "enabled", "disabled", "true", "false", "1", "0", "-1")
#: Values of these kinds name things that the program would open: never tried, any text is right.
OPENED: Final = re.compile(r"FILE|FNAME|PATH|DIR|URL|HOST|SERVERS|JSON|repo|model")
#: C++ number functions by the type that they need; int is 32 bits wide, long and long long are 64.
NUMBER_FUNCTIONS: Final = {"stoi": "integer", "sto(?:l|ul|ll|ull)": "integer64", "sto[fd]": "number"}
#: Flags that are gone without a word from the parser, and what does their work now. Source: llama-server of
#: build 11669 refuses the old ones; the new form is in its --help. They are left out where a program still has them.
MOVED: Final = {
    "--mlock": "--load-mode mlock",
    "--mmap": "--load-mode mmap",
    "--no-mmap": "--load-mode none",
    "--direct-io": "--load-mode dio",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One flag as `--help` prints it."""

    names: tuple[str, ...]
    hint: str
    #: The description, line by line, and what follows it.
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(line.strip() for line in self.lines)


def read_help(text: str) -> Iterator[Entry]:
    """Split the output of `--help` into flags."""
    head, lines = "", list[str]()
    for line in [*text.splitlines(), "-----"]:
        if not line.startswith("-"):
            lines.append(line)
            continue
        if head:
            yield _entry(head, lines)
        inline = line[DESCRIPTION_COLUMN - 2 : DESCRIPTION_COLUMN] == "  "
        head = "" if line.startswith("-----") else (line[:DESCRIPTION_COLUMN] if inline else line)
        lines = [line[DESCRIPTION_COLUMN:]] if inline else []


def _entry(head: str, lines: Sequence[str]) -> Entry:
    names, rest = list[str](), head.strip()
    while match := re.match(r"(-[^\s,]+)(,\s+|\s+|$)", rest):
        names.append(match[1])
        rest = rest[match.end() :]
        if not match[2].startswith(","):
            break
    return Entry(names=tuple(names), hint=rest.strip(), lines=tuple(lines))


class Program:
    """The program whose flags are asked for."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        # No environment: LLAMA_ARG_* would show up as defaults.
        return subprocess.run(
            [*self._command, *args], capture_output=True, text=True, env={"PATH": os.defpath + ":/usr/sbin"}, timeout=20
        )

    def version(self) -> tuple[str, str]:
        """The release as upstream tags it, and the build: ("v0.7.0", "11669")."""
        answer = self.run("--version")
        match = re.search(r"version: (\S+) \(build (\d+)", answer.stdout + answer.stderr)
        if not match:
            raise SystemExit(f"'{shlex.join(self._command)} --version' names no release: {answer.stdout[:200]!r}")
        return f"v{match[1]}", match[2]

    def complaint(self, *args: str) -> str:
        """What the parser has against these arguments; empty when it takes them."""
        answer = self.run(*args, "--version")
        if answer.returncode == 0:
            return ""
        match = re.search(r"error(?: while handling argument \"[^\"]*\")?: (.+)", answer.stdout + answer.stderr)
        return match[1] if match else f"exit status {answer.returncode}"

    def stops_at(self, switch: str) -> bool:
        """Whether a switch prints something and ends the program well, instead of starting the server."""
        return self.run(switch, "--offline", "--model", "/nonexistent", "--port", "0").returncode == 0


def describe(entry: Entry, program: Program) -> tuple[str, dict[str, Any]]:
    """The table's row for one flag: its canonical name and what is known of it."""
    positive, negative = _split_negations(entry)
    canonical = next((name for name in positive if name.startswith("--")), positive[0])
    row: dict[str, Any] = {"aliases": [name for name in positive if name != canonical], "negations": negative}
    if "argument has been removed" in entry.text:
        row |= {"type": "string", "values": 1, "removed": _after(entry.text, "removed. use ")}
    elif not entry.hint:
        row |= {"type": "switch", "exits": program.stops_at(canonical)}
    else:
        row |= _values(canonical, entry, program)
    row |= {"hint": entry.hint, "default": _default(entry.text), "environment": _parenthesis(entry.text, "env: ")}
    return canonical, {key: value for key, value in row.items() if value}


def _split_negations(entry: Entry) -> tuple[list[str], list[str]]:
    """Names that switch on, and names that switch off: these stand last, and one of them begins with `--no-`."""
    names = entry.names
    longs = [i for i, name in enumerate(names) if name.startswith("--")]
    if entry.hint or not any(name.startswith("--no-") for name in names[1:]):
        return list(names), []
    start = next(i for i in range(longs[0] + 1, len(names)) if re.match(r"--no-|-[^-]", names[i]))
    return list(names[:start]), list(names[start:])


def _values(flag: str, entry: Entry, program: Program) -> dict[str, Any]:
    count = 2 if entry.hint == "START END" else 1
    if OPENED.search(entry.hint):
        return {"type": "string", "values": count}
    complaint = program.complaint(flag, *["?"] * count)
    for function, number_type in NUMBER_FUNCTIONS.items():
        if re.fullmatch(function, complaint):
            if "," in entry.hint:  # a list such as 3,1 is read by the same functions
                return {"type": "string", "values": count}
            words = [w for w in _documented(entry) if w.isalpha() and not program.complaint(flag, w)]
            return {"type": number_type, "values": count, "choices": words, "minimum": _minimum(flag, count, program)}
    choices = [word for word in _documented(entry) if not program.complaint(flag, word)]
    if not complaint or not choices:
        return {"type": "string", "values": count}
    return {
        "type": "list" if re.fullmatch(r"[\w-]+(,[\w-]+)+", entry.hint) else "choice",
        "values": count,
        "choices": choices,
        "undocumented": [w for w in BOOLEAN_WORDS if w not in choices and not program.complaint(flag, w)],
    }


def _minimum(flag: str, count: int, program: Program) -> str:
    """The smallest number, where it is 0 or 1; empty where negative ones are taken or the bound is not known."""
    takes = {n: not program.complaint(flag, *[n] * count) for n in ("-1", "0", "0.5", "1")}
    if takes["-1"] or not takes["1"]:
        return ""
    return "0" if takes["0"] else ("" if takes["0.5"] else "1")


def _documented(entry: Entry) -> list[str]:
    """Words that the help names as values, most of which are some."""
    found = re.split(r"[,|]", entry.hint.strip("{}[]<>"))
    found += re.split(r", ", _after(entry.text, "allowed values: ").split(" (")[0])
    found += [match[1] for line in entry.lines if (match := re.match(r"\s*- ([\w+-]+)(?: \(default\))?:", line))]
    found += re.findall(r"'([\w+-]+)'", entry.text)
    found.append(_default(entry.text))
    return [word for word in dict.fromkeys(found) if re.fullmatch(r"[a-z0-9_+-]+", word)]


def _default(text: str) -> str:
    found = _parenthesis(text, "default: ") or _after(text, ", default: ").split(" (")[0]
    return re.sub(r"^'([^']*)'$", r"\1", found)


def _parenthesis(text: str, start: str) -> str:
    """The rest of the parenthesis that begins, or has after a comma, with `start`."""
    match = re.search(r"\((?:[^()]*, )?" + re.escape(start) + r"((?:[^()]|\([^()]*\))*)\)", text)
    return match[1].strip() if match else ""


def _after(text: str, start: str) -> str:
    return text.partition(start)[2].split(" (env:")[0].strip()


def table(program: Program, source: str, date: str) -> dict[str, Any]:
    """The whole table, in the order of the names."""
    version, build = program.version()
    entries = list(read_help(program.run("--help").stdout))
    # Hundreds of short runs of the program, which wait for the disk and the loader as much as they compute.
    with ThreadPoolExecutor() as pool:
        rows = dict(pool.map(lambda entry: describe(entry, program), entries))
    taken = {name for entry in entries for name in entry.names}
    rows |= {old: {"type": "switch", "removed": new} for old, new in MOVED.items() if old not in taken}
    return {
        "engine": "llama-cpp",
        "program": "llama-server",
        "version": version,
        "build": build,
        "source": f"llama-server --help of {source}",
        "date": date,
        "flags": dict(sorted(rows.items())),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="command that starts the engine's server")
    parser.add_argument("--source", help="where the program comes from; default with --check: as in the file")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is not up to date")
    options = parser.parse_args()
    program = Program(shlex.split(options.program))
    if options.check:
        committed = json.loads(options.out.read_text())
        prefix = "llama-server --help of "
        source = options.source or committed["source"].removeprefix(prefix)
        if table(program, source, committed["date"]) == committed:
            return 0
        print(f"{options.out} is not what the program says. Run this again without --check.", file=sys.stderr)
        return 1
    if not options.source:
        parser.error(
            "--source is needed: package and version of the program, such as 'Debian package llama.cpp 1:0.7.0'"
        )
    made = table(program, options.source, datetime.now(UTC).date().isoformat())
    options.out.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    print(f"{options.out}: {len(made['flags'])} flags of {made['program']} {made['version']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
