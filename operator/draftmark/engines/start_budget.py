"""How long a pod may take until it answers.

The budget follows the largest size that the model can have. A crash is seen at once whatever the budget; it only bounds
how long a server may hang. The rates are guesses on the slow side, no measurement.
"""

from typing import Final

from draftmark.api.model_uri import HubModel, ModelSource, UrlModel

#: Bytes per second of a slow network volume.
READ_RATE: Final = 50_000_000
#: Bytes per second of a slow connection to the hub.
DOWNLOAD_RATE: Final = 10_000_000
#: Seconds when the size is unknown.
START_UNKNOWN_S: Final = 3600
#: The largest budget, in seconds: a memory limit may be any number, a probe counts in 32 bits.
START_MAX_S: Final = 24 * 3600


def start_budget_s(source: ModelSource, max_model_bytes: int | None, *, base_s: int) -> int:
    """Seconds that a pod may take until it answers.

    Args:
        max_model_bytes: Bytes that the model cannot exceed; None when unknown.
        base_s: Seconds to start apart from reading the model.
    """
    if max_model_bytes is None:
        return START_UNKNOWN_S
    rate = DOWNLOAD_RATE if isinstance(source, HubModel | UrlModel) else READ_RATE
    return min(base_s - (-max_model_bytes // rate), START_MAX_S)  # rounded up, without a float that overflows
