"""The program: arguments are data, the answer goes to the termination log."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from draftmark.facts.model_answer import ModelAnswer, ModelProblem, write_answer
from draftmark.model_facts_reader.hub import Hub, Question, read_hub
from draftmark.model_facts_reader.mounted import read_mounted
from draftmark.model_facts_reader.problem import ReadingEnds

#: Where the kubelet looks for the message. Source: Kubernetes docs, "Determine the Reason for Pod Failure".
TERMINATION_LOG = "/dev/termination-log"


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer, and return 0; 1 when the answer could not be written."""
    args = _parser().parse_args(arguments)
    answer = _answer(args)
    text = write_answer(answer)
    print(text, flush=True)
    try:
        Path(args.output).write_text(text, "utf-8")
    except OSError as error:
        print(f"{args.output} cannot be written: {error}", file=sys.stderr)
        return 1
    return 0


def _answer(args: argparse.Namespace) -> ModelAnswer | ModelProblem:
    try:
        if args.where == "mounted":
            return read_mounted(Path(args.root), args.path, source=args.source)
        question = Question(
            repository=args.repository, revision=args.revision, file=args.file, quantization=args.quantization
        )
        token = os.environ.get("HF_TOKEN", "").strip() or None
        with Hub(args.endpoint, args.redirect_host, token=token, allow_http=args.allow_http) as hub:
            return read_hub(hub, question)
    except ReadingEnds as ends:
        return ends.problem


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("draftmark.model_facts_reader", allow_abbrev=False)
    parser.add_argument("--output", default=TERMINATION_LOG)
    where = parser.add_subparsers(dest="where", required=True)
    mounted = where.add_parser("mounted", allow_abbrev=False)
    mounted.add_argument("--root", required=True)
    mounted.add_argument("--path", default="")
    mounted.add_argument("--source", required=True)
    hub = where.add_parser("hub", allow_abbrev=False)
    hub.add_argument("--endpoint", required=True)
    hub.add_argument("--redirect-host", action="append", default=[])
    hub.add_argument("--allow-http", action="store_true")
    hub.add_argument("--repository", required=True)
    hub.add_argument("--revision", default="main")
    hub.add_argument("--file")
    hub.add_argument("--quantization")
    return parser


if __name__ == "__main__":
    sys.exit(main())
