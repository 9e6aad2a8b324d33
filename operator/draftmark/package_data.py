"""Where templates and CRDs lie: beside the package in a wheel, at the top of the tree in a checkout."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def data_folder(name: str) -> Traversable:
    """Return the folder `templates` or `crds` of this installation.

    Raises:
        FileNotFoundError: The installation is damaged: neither place has the folder.
    """
    packaged = files("draftmark") / "_data" / name
    if packaged.is_dir():
        return packaged
    checkout = Path(__file__).resolve().parents[2] / name
    if checkout.is_dir():
        return checkout
    raise FileNotFoundError(
        f"Draftmark's {name}/ folder is neither in the package nor in a checkout. Install it again."
    )
