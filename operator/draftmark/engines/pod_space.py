"""Where an engine pod has its models, and the room that it writes to: volumes, mounts, and the environment that goes with
them.

For engines that read folders of safetensors. A repository of the hub is downloaded by the engine itself into its cache;
what lies on a claim or in an image is mounted, read-only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from draftmark.api.model_uri import ClaimModel, HubModel, ImageModel, ModelSource, UrlModel

__all__ = ["CACHE_FOLDER", "PodSpace", "home", "hub_token"]

MODEL_FOLDER: Final = "/models"
ADAPTER_FOLDER: Final = "/adapters"
DRAFT_FOLDER: Final = "/draft"
CACHE_FOLDER: Final = "/cache"
SHM_FOLDER: Final = "/dev/shm"


@dataclass(slots=True)
class PodSpace:
    """Volumes and mounts of a pod, as they come together; a claim or image that is needed twice is mounted once."""

    volumes: list[Mapping[str, Any]] = field(default_factory=list)
    mounts: list[Mapping[str, Any]] = field(default_factory=list)
    #: Whether something is downloaded.
    needs_hub: bool = False
    _folders: dict[str, str] = field(default_factory=dict)

    def bring_model(self, source: ModelSource) -> str:
        """Where the engine finds the model."""
        return self._bring(source, "draftmark-model", MODEL_FOLDER)

    def bring_adapter(self, source: ModelSource, number: int) -> str:
        """Where the engine finds a LoRA adapter, by its place in the list."""
        return self._bring(source, f"draftmark-adapter-{number}", f"{ADAPTER_FOLDER}/{number}")

    def bring_draft(self, source: ModelSource) -> str:
        """Where the engine finds the model that guesses."""
        return self._bring(source, "draftmark-draft", DRAFT_FOLDER)

    def _bring(self, source: ModelSource, name: str, folder: str) -> str:
        """A repository of the hub, or a path in a volume.

        Args:
            name: Of the volume, if one is made.
            folder: Where that is mounted.
        """
        match source:
            case HubModel(repository=repository):
                self.needs_hub = True
                return repository
            case ClaimModel(claim=claim, path=path):
                volume = {"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
                return f"{self._folder(f'pvc://{claim}', volume, folder)}/{path}"
            case ImageModel(reference=reference, path=path):
                volume = {"name": name, "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}
                inside = self._folder(f"oci://{reference}", volume, folder)
                return f"{inside}/{path}" if path is not None else inside
            case UrlModel():
                raise ValueError("the planner refuses it")

    def _folder(self, source: str, volume: Mapping[str, Any], folder: str) -> str:
        if source not in self._folders:
            self._folders[source] = folder
            self.volumes.append(volume)
            self.mounts.append({"name": volume["name"], "mountPath": folder, "readOnly": True})
        return self._folders[source]

    def add_scratch(self, shm_bytes: int) -> None:
        """Room of the pod's own: caches, and /dev/shm, of which a container has 64 MB otherwise.

        Args:
            shm_bytes: Bound of /dev/shm, no reservation: what is written there counts as the container's memory.
        """
        self._scratch("draftmark-cache", CACHE_FOLDER)
        self._scratch("draftmark-shm", SHM_FOLDER, medium="Memory", sizeLimit=_binary(shm_bytes))

    def _scratch(self, name: str, folder: str, **fields: str) -> None:
        self.volumes.append({"name": name, "emptyDir": fields})
        self.mounts.append({"name": name, "mountPath": folder})


def home(user: str) -> dict[str, str]:
    """Variables of a process that has a number and no name, on a root file system that is read-only.

    Args:
        user: Torch asks for the user's name while it builds the path of a cache.
    """
    return {
        "HOME": CACHE_FOLDER,
        "USER": user,
        "XDG_CACHE_HOME": f"{CACHE_FOLDER}/.cache",
        "XDG_CONFIG_HOME": f"{CACHE_FOLDER}/.config",
        "HF_HOME": f"{CACHE_FOLDER}/huggingface",
    }


def hub_token(secret: tuple[str, str] | None) -> list[dict[str, Any]]:
    """The hub's token as a variable, from name and key of its Secret."""
    if secret is None:
        return []
    name, key = secret
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}]


def _binary(size: int) -> str:
    """A size as the API server writes it, rounded up to whole MiB."""
    mib = -(-size // 2**20)
    return f"{mib // 1024}Gi" if mib % 1024 == 0 else f"{mib}Mi"
