"""The tiny model where a cluster finds it: a file on the node, as a claim; or an image."""

import tempfile
from pathlib import Path
from typing import Final

from e2e.cluster.choose import Target
from e2e.tools import Tools

#: Names of the claim, and of the model's file in it and in the image.
CLAIM: Final = "tiny-model"
FILE: Final = "tiny.gguf"
#: Its vocabulary for the stand-in, in the claim only.
VOCABULARY: Final = "tiny-vocabulary.json"
URI: Final = f"pvc://{CLAIM}/{FILE}"


def place_tiny_model(target: Target) -> str:
    """Write the model and its vocabulary to the node, and return their folder there."""
    from e2e import tiny_gguf  # only here, since only this needs numpy

    with tempfile.TemporaryDirectory() as folder:
        where = target.place(tiny_gguf.write(Path(folder) / FILE))
        target.place(tiny_gguf.write_vocabulary(Path(folder) / VOCABULARY))
    if where is None:
        raise RuntimeError("The nodes of this cluster are out of reach, so no model can be put there.")
    return where


def claim_folder(tools: Tools, *, folder: str, namespace: str) -> None:
    """Make a folder of the node the claim `CLAIM` of a namespace, and wait until it is bound.

    Bound before any pod asks for it: a pod that the scheduler has put aside for an unbound claim waits many seconds
    for its next turn. The volume comes first, and names the claim; the claim does not name the volume. Measured with
    Kubernetes 1.35.4: any other order, or naming both, is bound when the controller looks at everything again, which
    is every 15 s.
    """
    volume, claim = f"persistentvolume/{namespace}-{CLAIM}", f"persistentvolumeclaim/{CLAIM}"
    modes, size = ["ReadOnlyMany"], {"storage": "10Mi"}
    tools.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{namespace}-{CLAIM}"},
            "spec": {
                "capacity": size,
                "accessModes": modes,
                "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": CLAIM},
                "hostPath": {"path": folder, "type": "Directory"},
            },
        }
    )
    phase = "-o=jsonpath={.status.phase}"
    if tools.kubectl("get", volume, phase) != "Bound":  # it is, when this is done again
        tools.kubectl("wait", volume, "--for=jsonpath={.status.phase}=Available", "--timeout=30s")
    tools.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": namespace},
            "spec": {
                "accessModes": modes,
                "storageClassName": "",
                "resources": {"requests": size},
            },
        }
    )
    tools.kubectl("wait", claim, f"--namespace={namespace}", "--for=jsonpath={.status.phase}=Bound", "--timeout=30s")
