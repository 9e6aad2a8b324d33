"""Kubernetes quantities, read into numbers."""

import re
from decimal import Decimal
from typing import Final

_SUFFIX: Final = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(1000),
    "M": Decimal(1000) ** 2, "G": Decimal(1000) ** 3, "T": Decimal(1000) ** 4, "P": Decimal(1000) ** 5,
    "E": Decimal(1000) ** 6, "Ki": Decimal(1024), "Mi": Decimal(1024) ** 2, "Gi": Decimal(1024) ** 3,
    "Ti": Decimal(1024) ** 4, "Pi": Decimal(1024) ** 5, "Ei": Decimal(1024) ** 6,
}  # fmt: skip
#: Quantities end here. Source: Kubernetes, apimachinery `resource.Quantity`.
MAX_QUANTITY: Final = Decimal(2**63)
_QUANTITY: Final = re.compile(r"([+-]?[0-9]+\.?[0-9]*|[+-]?\.[0-9]+)(?:([eE][+-]?[0-9]{1,3})|([numkMGTPE]|[KMGTPE]i)?)")


def parse_quantity(text: str) -> Decimal | None:
    """The number of a quantity such as 500m, 2, 16Gi or 1e3, in units of the resource (cores, bytes); None when it is
    none, or too large to be one. Written here and not taken from the `kubernetes` package, which the decisions must not import."""
    match = _QUANTITY.fullmatch(text)
    if not match:
        return None
    number = Decimal(match[1] + (match[2] or ""))
    number *= _SUFFIX[match[3] or ""]
    return number if abs(number) < MAX_QUANTITY else None
