"""The parser of an installed SGLang, without what SGLang needs to serve.

    PYTHON_WITH_SGLANG e2e/sglang_parser.py < LISTS_OF_ARGUMENTS.json

prints for each list what the parser has against it, or nothing. tests/contract asks it, and e2e/argparse_table.py makes
the flag table with it.

The wheel is 39 MB; what it depends on takes gigabytes and a GPU. Its parser needs little of that: it is built from
declarations, which import the rest on the way. So the modules in `ABSENT` are replaced by ones that have any name, and
every flag, type, choice and action is SGLang's own. What an installed SGLang checks after parsing needs the model and a
GPU, and is not asked here. The standard library only: it runs where SGLang is installed, and nothing else of this
repository has to be.
"""

import argparse
import contextlib
import importlib
import importlib.machinery
import importlib.util
import io
import json
import os
import sys
import types
from abc import ABCMeta
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from typing import Any, Final

#: Modules that are replaced, with all below them. The second group is SGLang's own: communication of several GPUs.
ABSENT: Final = ("torch", "torchcodec", "triton", "PIL", "sglang.srt.distributed")
#: What a platform is told by, and no machine that runs this has.
ACCELERATORS: Final = ("hpu", "mlu", "musa", "npu")


class _AnyClass(ABCMeta):
    """A class that has every attribute, and may be a base beside others."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


class Anything(metaclass=_AnyClass):
    """What stands for a name of an absent module: a class, a function, a decorator or a number that is nothing."""

    def __new__(cls, *args: Any, **more: Any) -> Any:
        return args[0] if cls is Anything and _decorates(args, more) else super().__new__(cls)

    def __init__(self, *args: Any, **more: Any) -> None:
        pass

    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything

    def __call__(self, *args: Any, **more: Any) -> Any:
        return args[0] if _decorates(args, more) else self

    def __bool__(self) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter(())


def _decorates(args: Sequence[Any], more: Any) -> bool:
    return len(args) == 1 and callable(args[0]) and not more


class _Absent(types.ModuleType):
    """A module that has every name, and every module below it."""

    __path__: list[str] = []  # noqa: RUF012, a module's own
    #: Compared with others by SGLang; the version that it demands.
    __version__ = "2.14.1"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ACCELERATORS:
            raise AttributeError(name)
        return Anything


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if not any(fullname == name or fullname.startswith(f"{name}.") for name in ABSENT):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Absent(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def server_args() -> Any:
    """SGLang's own class of arguments."""
    # Decided before a GPU is looked for.
    os.environ["SGLANG_USE_CPU_ENGINE"] = "1"
    sys.meta_path.insert(0, _Finder())
    # The package's own beginning changes transformers, which the parser does not need.
    spec = importlib.util.find_spec("sglang")
    assert spec is not None, "sglang is not installed"
    package = types.ModuleType("sglang")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["sglang"] = package
    return importlib.import_module("sglang.srt.server_args").ServerArgs


def make_arg_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the arguments of `sglang serve` to a parser."""
    server_args().add_cli_args(parser)
    # `sglang serve` takes this one away before the parser sees the rest (cli/serve.py); out-of-tree packages add kinds.
    parser.add_argument("--model-type", default="auto", metavar="{auto,llm,diffusion}")
    return parser


def complaints(command_lines: Sequence[Sequence[str]]) -> list[str]:
    """What the parser has against each list of arguments; empty where it takes it."""
    parser = make_arg_parser(argparse.ArgumentParser(prog="sglang serve"))
    told = []
    for arguments in command_lines:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                sys.modules["sglang.srt.server_args"].ServerArgs.from_cli_args(parser.parse_args(list(arguments)))
            told.append("")
        except (SystemExit, ValueError, TypeError, AssertionError) as error:
            told.append(f"{error!r} {said.getvalue()[-500:]}")
    return told


if __name__ == "__main__":
    print(json.dumps(complaints(json.load(sys.stdin))))
