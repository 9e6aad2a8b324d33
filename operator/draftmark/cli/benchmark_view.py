"""What the commands say of a Benchmark: how far it is, its rows, and what its comparison came to. From its status."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from draftmark.cli.spans import span
from draftmark.cli.tree import Branch, Tone, Word
from draftmark.measure.report import TBD, decimal, plain
from draftmark.measure.result import METRIC_NAMES

__all__ = [
    "DIFFERENCE_HEADS",
    "benchmark_tree",
    "difference_cells",
    "refusals",
    "report_command",
    "row_table",
    "winner_lines",
]

Json = Mapping[str, Any]

_PHASE_TONES: Final[Mapping[str, Tone]] = {"Succeeded": "good", "Inconclusive": "bad", "Failed": "bad"}
#: kstatus' words repeat ours.
_HIDDEN: Final = frozenset({"Reconciling", "Stalled"})
_STAGES: Final = {
    "Waiting": "waits",
    "Starting": "starts",
    "Tokenizer": "reads the tokenizer",
    "WarmUp": "warms up",
    "Measuring": "measures",
    "Evaluating": "evaluates",
}
_LATENCIES: Final = (("ttft", "TTFT"), ("itl", "ITL"), ("e2e", "E2E"))
_SHOWN: Final = ("p50", "p99")

DIFFERENCE_HEADS: Final = ("WORKLOAD", "LOAD", "METRIC", "DIFFERENCE", "INTERVAL", "VERDICT")


def benchmark_tree(benchmark: Json) -> Branch:
    """What is measured, how far it is, and what the conditions say."""
    metadata, status = benchmark["metadata"], _status(benchmark)
    phase = str(status.get("phase") or "not seen by the operator yet")
    head = (
        Word(f"{metadata.get('namespace')}/{metadata['name']}", "strong"),
        Word(phase, _PHASE_TONES.get(phase, "busy")),
    )
    branches = [_target(name, status[name]) for name in ("target", "compared") if status.get(name)]
    if status.get("progress") and phase not in _PHASE_TONES:
        branches.append(_progress(status["progress"]))
    if phase in _PHASE_TONES and status.get("finishedAt"):
        branches.append(Branch((Word("finished"), Word(plain(str(status["finishedAt"])), "faint"))))
    branches += [
        Branch(
            (
                Word(f"{c.get('type')}={c.get('status')}", _PHASE_TONES.get(phase, "busy")),
                Word(plain(str(c.get("reason")))),
                *([Word(plain(str(c["message"])))] if c.get("message") else []),
            )
        )
        for c in status.get("conditions") or ()
        if c.get("type") not in _HIDDEN
    ]
    return Branch(head, tuple(branches))


def _status(benchmark: Json) -> Json:
    status: Json = benchmark.get("status") or {}
    # A status of an earlier object says nothing of this one.
    return status if status.get("observedGeneration") == benchmark["metadata"].get("generation") else {}


def _target(name: str, target: Json) -> Branch:
    parts = [target.get("service") or target.get("url"), target.get("revision"), target.get("engine")]
    parts += [target.get("version"), target.get("model"), target.get("quantization"), target.get("hardware")]
    return Branch((Word(name), Word(", ".join(plain(str(part)) for part in parts if part), "faint")))


def _progress(progress: Json) -> Branch:
    words = [Word(_STAGES.get(str(progress.get("stage")), str(progress.get("stage"))), "busy")]
    words += [Word(plain(str(progress[key]))) for key in ("workload", "load") if progress.get(key)]
    words.append(Word(f"{progress.get('percent', 0)} %"))
    if progress.get("secondsLeft") is not None:
        words.append(Word(f"{span(float(progress['secondsLeft']))} left", "faint"))
    return Branch(tuple(words))


def row_table(benchmark: Json) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the status; what was not measured reads TBD."""
    found: list[Json] = list(_status(benchmark).get("results") or ())
    is_compared = any(row["target"] == "compared" for row in found)
    has_goodput = any(row.get("goodputPerSecond") is not None for row in found)
    heads = ["WORKLOAD", "LOAD", *(["TARGET"] if is_compared else []), "SAMPLES", "ERRORS %"]
    heads += [f"{name} {p.upper()} MS" for _, name in _LATENCIES for p in _SHOWN]
    heads += ["REQUESTS/S", "TOKENS/S", *(["GOODPUT/S"] if has_goodput else []), "RESULT"]
    rates = ["requestsPerSecond", "outputTokensPerSecond", *(["goodputPerSecond"] if has_goodput else [])]
    rows = []
    for row in found:
        is_refused = bool(row.get("reason"))
        numbers: Json = {} if is_refused else row
        cells = [plain(str(row["workload"])), plain(str(row["load"])), *([str(row["target"])] if is_compared else [])]
        cells += [str(row["samples"]), decimal(row.get("errorPercent"))]
        cells += [decimal((numbers.get(key) or {}).get(p)) for key, _ in _LATENCIES for p in _SHOWN]
        cells += [decimal(numbers.get(key)) for key in rates]
        cells.append(f"REFUSED: {plain(str(row['reason']))}" if is_refused else _objectives(row))
        rows.append(cells)
    return heads, rows


def _objectives(row: Json) -> str:
    held = row.get("holdsObjectives")
    return "measured" if held is None else "holds the objectives" if held else "MISSES THE OBJECTIVES"


def refusals(benchmark: Json) -> list[str]:
    """Why rows have no numbers, a line for each."""
    found: list[Json] = list(_status(benchmark).get("results") or ())
    is_compared = any(row["target"] == "compared" for row in found)
    lines = []
    for row in found:
        if row.get("reason"):
            where = [row["workload"], row["load"], *([row["target"]] if is_compared else [])]
            # A status that was too long has left it out.
            message = str(row.get("message") or f"see {report_command(benchmark)}")
            words = [", ".join(map(str, where)), str(row["reason"]), message]
            lines.append(plain(": ".join(words)))
    return lines


def report_command(benchmark: Json) -> str:
    """What shows the whole result of a Benchmark that has ended."""
    metadata = benchmark["metadata"]
    return f"kubectl draftmark report {metadata['name']} -n {metadata['namespace']}"


def winner_lines(benchmark: Json) -> list[str]:
    """Who won each workload. Where nobody did, the message says why, such as that no difference was shown."""
    status = _status(benchmark)
    lines = []
    for told in status.get("winners") or ():
        winner = str(told["winner"])
        wins = f"{_name(status.get(winner) or {}, status) or winner} wins: " if winner != "none" else ""
        lines.append(plain(f"{told['workload']}: {wins}{told['message']}"))
    return lines


def _name(target: Json, status: Json) -> str:
    name = plain(str(target.get("service") or target.get("url") or ""))
    both: Iterable[Json] = (status.get("target") or {}, status.get("compared") or {})
    is_twice = len({t.get("service") or t.get("url") for t in both}) == 1
    return f"{name} {target['revision']}" if is_twice and target.get("revision") else name


def difference_cells(benchmark: Json) -> list[list[str]]:
    """The differences of a comparison, under `DIFFERENCE_HEADS`."""
    rows = []
    for d in _status(benchmark).get("differences") or ():
        bounds = (d.get("lowPercent"), d.get("highPercent"))
        rows.append(
            [
                plain(str(d["workload"])),
                plain(str(d["load"])),
                METRIC_NAMES.get(str(d["metric"]), plain(str(d["metric"]))),
                TBD if d.get("percent") is None else f"{d['percent']:+.1f} %",
                TBD if None in bounds else f"{bounds[0]:+.1f} to {bounds[1]:+.1f} %",
                str(d["verdict"]),
            ]
        )
    return rows
