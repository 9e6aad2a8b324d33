"""Manifests as YAML text: what is written is read back the same, and reads well."""

from hypothesis import example, given
from hypothesis import strategies as st

from draftmark.render.yaml_io import dump_manifest, load_manifests

lines = st.lists(st.sampled_from(["", " ", "a", "a: b", "# c", "- d", "  e", "\t", "é", "…", "😀"]), max_size=6).map(
    "\n".join
)


@given(text=lines | st.text(st.characters(exclude_categories=["Cs"])))
@example("a\u2028b\n")
@example("a\x85b\n")
@example("\n a\n")
@example("a \nb\n")
def test_a_text_is_read_back_as_it_was(text: str) -> None:
    manifest = {"kind": "ConfigMap", "data": {"file": text}}
    assert load_manifests(dump_manifest(manifest)) == [manifest]


def test_a_text_of_several_lines_is_a_block() -> None:
    written = dump_manifest({"kind": "ConfigMap", "data": {"file": "# Why.\nkey: 'value'\n"}})
    assert written == "kind: ConfigMap\ndata:\n  file: |\n    # Why.\n    key: 'value'\n"
