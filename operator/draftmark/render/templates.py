"""Templates that values cannot break out of.

A value never becomes text. Where a template has an expression, the environment writes a numbered mark in its place; the
text, which then holds nothing but the template's own words, is read as YAML; and in the object that comes out each mark
is replaced by its value. So there is nothing to quote and nothing to escape, whatever a value holds. Reading is cheap,
too: a template yields few different texts, and each is parsed once.

Files that are not YAML cannot be done that way. There a value does become text, and must be a number or a word.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

import yaml
from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound, Undefined, pass_context
from jinja2.runtime import Context

from draftmark.package_data import data_folder

_MARK: Final = re.compile(r"<value (\d+)>")
#: What a value of a text may be: hashes, addresses, ports, paths. No white space, quote, percent sign or brace.
_WORD: Final = re.compile(r"[A-Za-z0-9._:\[\]/-]+")
#: Name under which a rendering collects its values; no template may use it.
_VALUES: Final = "_values"


class _Files(BaseLoader):
    def get_source(self, environment: Environment, template: str) -> tuple[str, None, None]:
        return read_text(template), None, None


@pass_context
def _mark(context: Context, value: object) -> str:
    """The mark that stands for a value until the text is an object."""
    if isinstance(value, Undefined):
        return str(value)  # raises, and says which name it is
    values: list[object] = context[_VALUES]
    values.append(value)
    return f"<value {len(values) - 1}>"


def _word(value: object) -> str:
    """A value as a part of a text that nothing can break out of."""
    if isinstance(value, Undefined):
        return str(value)  # raises, and says which name it is
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and _WORD.fullmatch(value):
        return value
    raise ValueError(f"a value of a text is a whole number or one plain word, and this is neither: {value!r}")


@cache
def _environment(finalize: Callable[..., str]) -> Environment:
    environment = Environment(
        loader=_Files(),
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # no HTML here, and no value is ever part of the text
    )
    # Jinja's own names (`namespace`, `range`) would stand in for a value that was forgotten.
    environment.globals.clear()
    return environment


@dataclass(frozen=True, slots=True)
class _Value:
    """The place of a value in a shape."""

    number: int


@lru_cache(maxsize=256)
def _read(text: str) -> Any:
    """The shape of a text: what YAML says, with places where the marks are."""
    return _with_places(yaml.safe_load(text))


def _with_places(read: Any) -> Any:
    if isinstance(read, dict):
        return {_with_places(key): _with_places(item) for key, item in read.items()}
    if isinstance(read, list):
        return [_with_places(item) for item in read]
    if isinstance(read, str) and (found := _MARK.search(read)):
        if found[0] != read:
            raise ValueError(f"an expression of a template must be a whole value; this is a part of one: {read}")
        return _Value(int(found[1]))
    return read


def render(template: str, **values: object) -> dict[str, Any]:
    """Fill in a template from templates/.

    Args:
        template: Path below templates/.
        values: JSON data by the names that the template uses.

    Returns:
        The object, made of fresh dicts and lists: the caller's data is not part of it.

    Raises:
        jinja2.UndefinedError: The template asks for a value that was not given.
    """
    marked: list[object] = []
    text = _environment(_mark).get_template(template).render(values, **{_VALUES: marked})
    manifest = _fill(_read(text), marked)
    if not isinstance(manifest, dict):
        raise TypeError(f"template {template} yields {type(manifest).__name__}, not one object")
    return manifest


def render_text(template: str, **values: object) -> str:
    """Fill in a template from templates/ whose file is not YAML.

    Args:
        template: Path below templates/.
        values: By the names that the template uses. What an expression yields must be a whole number or one word of
            letters, digits and `._:[]/-`.

    Returns:
        The text. It ends with a line break.

    Raises:
        ValueError: An expression yields something else.
        jinja2.UndefinedError: The template asks for a value that was not given.
    """
    return _environment(_word).get_template(template).render(values).rstrip("\n") + "\n"


def read_text(file: str) -> str:
    """A file from templates/ into which nothing is filled.

    Raises:
        jinja2.TemplateNotFound: There is none of this name.
    """
    found = data_folder("templates").joinpath(*file.split("/"))
    if not found.is_file():
        raise TemplateNotFound(file)
    return found.read_text("utf-8")


def _fill(shape: Any, values: list[object]) -> Any:
    """The object of a template, with the values at their places."""
    kind = type(shape)
    if kind is dict:
        return {_fill(key, values) if type(key) is _Value else key: _fill(item, values) for key, item in shape.items()}
    if kind is list:
        return [_fill(item, values) for item in shape]
    if kind is _Value:
        return _plain(values[shape.number])
    return shape


#: JSON's own types that need no copy.
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


def _plain(value: Any) -> Any:
    """A copy of JSON data in JSON's own types."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict or isinstance(value, Mapping):
        return {key if type(key) is str else _key(key): _plain(item) for key, item in value.items()}
    if kind is list or isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str | int | float):
        return value
    raise TypeError(f"a template's value is JSON data, and this is a {kind.__name__}: {value!r}")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key of JSON data is text, and this is a {type(key).__name__}: {key!r}")
    return key
