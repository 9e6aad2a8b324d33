"""Values stay in their places, whatever they hold."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import Environment, UndefinedError
from jinja2.meta import find_undeclared_variables

from draftmark.decide import decide
from draftmark.package_data import data_folder
from draftmark.render import templates
from draftmark.render.templates import render
from tests.specs import T0, Object, observation, spec, with_field

TEMPLATES = sorted(f.name for f in (data_folder("templates") / "common").iterdir())

#: Texts that YAML, Jinja or a reader in a hurry would take for something else.
HOSTILE = [
    "", " ", "yes", "null", "~", "1e3", "0x10", "1_000", "2026-01-01", "NaN", ".inf", "- a", "a: b", "a #b", "--- x", "...",
    "---\nkind: Secret", "\n", "\r\n", "\t", '"', "'", '\\"', '"}, x: {"', "{{ 7 * 7 }}", "{% raw %}", "{# #}", "<value 0>",
    '"<value 1>"', "&a", "*a", "!!binary x", "%YAML", "|", ">", "@", "`", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u2029",
    "\ufeff", "\ufffe", "\uffff", "\ud800", "\udc00\ud800", "😀", "\U0010ffff", "k" * 2000,
]  # fmt: skip

texts = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=()))
numbers = st.integers() | st.floats(allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def expressions(name: str) -> list[str]:
    """Names that a template asks for."""
    source = (data_folder("templates") / "common" / name).read_text("utf-8")
    environment = Environment()
    environment.globals.clear()
    return sorted(find_undeclared_variables(environment.parse(source)))


def replaced(node: Any, old: str, new: Any) -> Any:
    """A copy of an object with one value in the place of another."""
    if isinstance(node, dict):
        return {key: replaced(item, old, new) for key, item in node.items()}
    if isinstance(node, list):
        return [replaced(item, old, new) for item in node]
    return new if node == old else node


def without(node: Any, old: str) -> Any:
    """A copy of an object without the field of that value."""
    if isinstance(node, dict):
        return {key: without(item, old) for key, item in node.items() if item != old}
    return [without(item, old) for item in node] if isinstance(node, list) else node


@pytest.mark.parametrize("template", TEMPLATES)
@given(data=st.data())
def test_any_value_comes_back_equal_and_in_its_place(template: str, data: st.DataObject) -> None:
    given_values = {name: f"the value of {name}" for name in expressions(template)}
    shape = render(f"common/{template}", **given_values)
    name, value = data.draw(st.sampled_from(sorted(given_values))), data.draw(json_values)
    manifest = render(f"common/{template}", **(given_values | {name: value}))
    expected = [replaced(shape, given_values[name], value)]
    if not value:
        expected.append(without(shape, given_values[name]))  # an optional field
    # Of the same types, too: 1, 1.0 and True are equal in Python.
    assert repr(manifest) in map(repr, expected)


def shape_of(node: Any) -> Any:
    """Keys and list lengths, without the values."""
    if isinstance(node, dict):
        return {key: shape_of(item) for key, item in node.items()}
    return [shape_of(item) for item in node] if isinstance(node, list) else type(node).__name__


#: Fields of the spec that take text that no pattern restricts.
FREE_TEXT = [
    "engine.args[0]", "engine.env[0].value", "podTemplate.metadata.annotations.note", "podTemplate.tolerations[0].key",
    "podTemplate.topologySpread[0].topologyKey", "podTemplate.affinity.nodeAffinity",
]  # fmt: skip


def with_text(path: str, text: str) -> Object:
    wanted = spec(
        engine={"name": "llama-cpp", "version": "b1", "env": [{"name": "A", "value": "1"}]},
        podTemplate={"topologySpread": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]},
    )
    return with_field(wanted, path, text)


@pytest.mark.parametrize("path", FREE_TEXT)
@given(text=texts.filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t) and len(t) <= 300))
@example(text='"}\n---\nkind: Secret')
@example(text="{{ cycler.__init__.__globals__ }}")
def test_no_text_of_a_spec_changes_the_shape_of_the_manifests(path: str, text: str) -> None:
    plain = decide(observation(with_text(path, "plain")), T0)
    hostile = decide(observation(with_text(path, text)), T0)
    assert hostile.refused is None
    assert [shape_of(m) for m in hostile.desired] == [shape_of(m) for m in plain.desired]
    assert [shape_of(m) for m in hostile.pins] == [shape_of(m) for m in plain.pins]


def test_the_caller_keeps_its_data_to_itself() -> None:
    labels = {"a": "b"}
    values: dict[str, Any] = dict.fromkeys(expressions("service.yaml.j2"), "x") | {"labels": labels}
    manifest = render("common/service.yaml.j2", **values)
    manifest["metadata"]["labels"]["a"] = "changed"
    manifest["spec"]["ports"][0]["name"] = "changed"
    assert labels == {"a": "b"}
    assert render("common/service.yaml.j2", **values)["spec"]["ports"][0]["name"] == "http"


@pytest.mark.parametrize("name", expressions("service.yaml.j2"))
def test_a_forgotten_value_is_an_error(name: str) -> None:
    """Also one that Jinja has a thing of its own for, such as `namespace`."""
    values: dict[str, Any] = {other: "x" for other in expressions("service.yaml.j2") if other != name}
    with pytest.raises(UndefinedError, match=f"'{name}' is undefined"):
        render("common/service.yaml.j2", **values)


@pytest.mark.parametrize("value", [{1: "a"}, {"a": {1, 2}}, b"x", T0, object()])
def test_a_value_that_is_no_json_is_an_error(value: object) -> None:
    values: dict[str, Any] = dict.fromkeys(expressions("service.yaml.j2"), "x")
    with pytest.raises(TypeError, match="JSON"):
        render("common/service.yaml.j2", **(values | {"labels": value}))


def test_an_expression_is_a_whole_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates._Files, "get_source", lambda *_: ("a: {{ x }}-{{ x }}", None, None))
    with pytest.raises(ValueError, match="whole value"):
        render("made-up", x="1")
