"""Model URIs: what each form means, and that every other text is refused with an example."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.api.model_uri import (
    SCHEMES,
    ClaimModel,
    HubModel,
    ImageModel,
    ModelSource,
    UnreadableUri,
    UrlModel,
    parse_model_uri,
)

GOOD: list[tuple[str, ModelSource]] = [
    ("hf://org/repo", HubModel(repository="org/repo")),
    ("hf://org/repo-GGUF:Q4_K_M", HubModel(repository="org/repo-GGUF", quantization="Q4_K_M")),
    ("hf://org/repo/dir/m.gguf", HubModel(repository="org/repo", file="dir/m.gguf")),
    ("https://host/m.gguf", UrlModel(url="https://host/m.gguf")),
    ("https://host:8443/a/m.gguf?x=1#f", UrlModel(url="https://host:8443/a/m.gguf?x=1#f")),
    ("pvc://claim/m.gguf", ClaimModel(claim="claim", path="m.gguf")),
    ("pvc://my.claim-1/a/b/m.gguf", ClaimModel(claim="my.claim-1", path="a/b/m.gguf")),
    ("oci://image", ImageModel(reference="image")),
    ("oci://host:5000/a/b:1#dir/m.gguf", ImageModel(reference="host:5000/a/b:1", path="dir/m.gguf")),
    ("oci://host/a@sha256:00", ImageModel(reference="host/a@sha256:00")),
]

BAD = [
    ("", "hf://"), ("model.gguf", "hf://"), ("s3://bucket/key", "hf://"), ("HF://org/repo", "hf://"), (" hf://org/repo", "hf://"),
    ("hf://", "ORG/REPO"), ("hf://repo", "ORG/REPO"), ("hf:///repo", "ORG/REPO"), ("hf://org/", "ORG/REPO"), ("hf://org/re po", "ORG/REPO"),
    ("hf://org/repo:Q4 K", "ORG/REPO"), ("hf://-org/repo", "ORG/REPO"), ("hf://org/repo:Q4/m.gguf", "ORG/REPO"),
    ("hf://org/repo/../m.gguf", "ORG/REPO"), ("hf://org/repo//m.gguf", "ORG/REPO"), ("hf://../repo", "ORG/REPO"),
    ("https://", "HOST/PATH"), ("https://host/m.bin", "HOST/PATH"), ("https:///m.gguf", "HOST/PATH"), ("https://u:p@host/m.gguf", "HOST/PATH"),
    ("https://u@host/m.gguf", "HOST/PATH"), ("https://host:x/m.gguf", "HOST/PATH"), ("https://host:99999/m.gguf", "HOST/PATH"),
    ("https://[::1/m.gguf", "HOST/PATH"), ("https://host/a b.gguf", "HOST/PATH"), ("https://host/m.gguf\n", "HOST/PATH"),
    ("pvc://", "CLAIM/PATH"), ("pvc://claim", "CLAIM/PATH"), ("pvc://claim/", "CLAIM/PATH"), ("pvc:///m.gguf", "CLAIM/PATH"),
    ("pvc://Claim/m.gguf", "CLAIM/PATH"), ("pvc://claim//m.gguf", "CLAIM/PATH"), ("pvc://claim/../m.gguf", "CLAIM/PATH"),
    ("pvc://claim/a/./m.gguf", "CLAIM/PATH"), ("pvc://claim/m.gguf\n", "CLAIM/PATH"), ("pvc://claim-/m.gguf", "CLAIM/PATH"),
    ("oci://", "REGISTRY/IMAGE"), ("oci://#m.gguf", "REGISTRY/IMAGE"), ("oci://image#../m.gguf", "REGISTRY/IMAGE"),
    ("oci://image#/m.gguf", "REGISTRY/IMAGE"), ("oci://image#a#b", "REGISTRY/IMAGE"), ("oci://Image", "REGISTRY/IMAGE"),
]  # fmt: skip


@pytest.mark.parametrize(("uri", "source"), GOOD)
def test_a_uri_names_a_source(uri: str, source: ModelSource) -> None:
    assert parse_model_uri(uri) == source


@pytest.mark.parametrize(("uri", "example"), BAD)
def test_any_other_text_is_refused_with_an_example(uri: str, example: str) -> None:
    with pytest.raises(UnreadableUri) as error:
        parse_model_uri(uri)
    assert example in str(error.value)
    assert uri[:100] in str(error.value)


def test_a_long_uri_is_cut_in_the_message() -> None:
    with pytest.raises(UnreadableUri) as error:
        parse_model_uri("pvc://" + "X" * 1000)
    assert len(str(error.value)) < 300


pieces = st.sampled_from(
    ["", "a", "A1", "..", ".", "/", "//", ":", "#", "@", "?", "[", "%2e%2e", "\\", "\n", "\x00", "m.gguf"]
)
rests = st.lists(pieces, max_size=7).map("".join) | st.text(max_size=40)


@given(scheme=st.sampled_from(SCHEMES), rest=rests)
def test_whatever_is_written_is_a_source_or_unreadable_and_never_leaves_its_folder(scheme: str, rest: str) -> None:
    try:
        source = parse_model_uri(f"{scheme}://{rest}")
    except UnreadableUri:
        return
    match source:
        case ClaimModel(path=path):
            parts = path.split("/")
        case ImageModel(path=path):
            parts = (path or "x").split("/")
        case HubModel(repository=repository, file=file):
            parts = [*repository.split("/"), *(file or "x").split("/")]
        case UrlModel(url=url):
            assert url.isascii()
            assert url.isprintable()
            return
    assert not {"", ".", ".."} & set(parts)
    assert all(part.isascii() and part.isprintable() and " " not in part for part in parts)
