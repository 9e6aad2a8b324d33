"""Measurements on a machine that may be busy: run anew where the load generator says that it could not measure. That is right of it,
it shows no number by which it could be wrong, and no reason to believe it less the next time."""

from typing import Final

#: Runs of one measurement.
TRIES: Final = 4
#: Codes of refusals that a busy machine is enough for.
BUSY: Final = frozenset({"ClientSaturated", "LoadNeverWhole", "ScatterTooLarge", "NotWarmedUp"})
