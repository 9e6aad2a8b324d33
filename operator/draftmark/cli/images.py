"""`draftmark images`: every image that a set of manifests needs, for a registry that has to hold them.

What the operator would make of our own kinds is decided as for `render`; of all other manifests, such as those of the
chart, the images are read as they stand there.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.cli import offline
from draftmark.cli.endings import fail
from draftmark.cli.manifests import files_option, read_manifests
from draftmark.render.benchmark import benchmark_image
from draftmark.render.yaml_io import load_documents

#: The file in the chart's ConfigMap that holds the administrator's defaults.
_DEFAULTS_FILE: Final = "defaults.yaml"
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")


@click.command()
@files_option
@offline.nodes_option
@offline.defaults_option
def images(files: tuple[str, ...], nodes: Path | None, defaults: Path | None) -> None:
    """Print every image that the manifests need, one per line.

    Manifests of the chart may be among them: their own images are printed as well, and the administrator's defaults are read from the chart's ConfigMap where --defaults does not name a file.
    """
    manifests = read_manifests(files)
    configured = offline.read_defaults(defaults) if defaults is not None else defaults_in(manifests)
    ours = [m for m in manifests if m.get("apiVersion") == names.API_VERSION and m["kind"] in offline.OUR_KINDS]
    others = [m for m in manifests if m not in ours]
    made = offline.render_all(offline.sort(ours), nodes, configured) if ours else []
    measuring = {benchmark_image(configured)} if any(m["kind"] == names.BENCHMARK_KIND for m in ours) else set()
    found = sorted(images_in([*others, *made]) | measuring)
    if not found:
        fail(f"no image in {', '.join(files)}. Give it the manifests of services, or what helm template prints.")
    click.echo("\n".join(found))


def defaults_in(manifests: Sequence[Mapping[str, Any]]) -> Defaults:
    """The administrator's defaults from the chart's ConfigMap, or none."""
    for manifest in manifests:
        labels = _object(_object(manifest.get("metadata")).get("labels"))
        text = _object(manifest.get("data")).get(_DEFAULTS_FILE)
        if manifest["kind"] == "ConfigMap" and labels.get("app.kubernetes.io/part-of") == "draftmark" and text:
            try:
                documents = load_documents(str(text))
                return Defaults.model_validate(documents[0] if documents else {})
            except ValueError as error:
                where = _object(manifest.get("metadata")).get("name")
                fail(f"{_DEFAULTS_FILE} in ConfigMap {where}: {error}. Correct it, or name a file with --defaults.")
    return Defaults()


def images_in(manifests: Sequence[Mapping[str, Any]]) -> set[str]:
    """The images of all pods and pod templates in manifests, image volumes included."""
    return {image for manifest in manifests for image in _images(manifest)}


def _images(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        # A schema has fields of these names, too, and no lists there.
        for container in (each for key in _CONTAINERS for each in _objects(value.get(key))):
            if isinstance(image := container.get("image"), str):
                yield image
        for volume in _objects(value.get("volumes")):
            if isinstance(reference := _object(volume.get("image")).get("reference"), str):
                yield reference
        for child in value.values():
            yield from _images(child)
    elif isinstance(value, list):
        for child in value:
            yield from _images(child)


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
