"""The command line: `draftmark`, and as kubectl's plugin `kubectl draftmark`.

Exit codes: 0 done, 1 invalid input or a cluster that refuses or does not answer, 2 valid but not plannable, 130 ended
with Ctrl-C. Messages go to stderr, results to stdout.
"""

from draftmark.cli.program import main

__all__ = ["main"]
