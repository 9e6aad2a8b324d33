"""What Argo CD shows of an object of ours: the chart's scripts in a real Lua, and the objects that a cluster told."""

from pathlib import Path
from typing import Any, Final

import yaml
from lupa import lua51

from draftmark.api import names

Object = dict[str, Any]

ARGOCD: Final = Path(__file__).resolve().parents[2] / "charts" / "draftmark" / "argocd"
#: What a script finds in Argo CD, which opens only the base and the table library. Source: argo-cd, util/lua/lua.go.
OPENED: Final = {"assert", "error", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawset", "select",
                 "setmetatable", "getmetatable", "table", "tonumber", "tostring", "type", "unpack", "xpcall", "_G",
                 "_VERSION"}  # fmt: skip
#: Health that Argo CD knows, and a script may answer with.
HEALTHY, PROGRESSING, DEGRADED, SUSPENDED = "Healthy", "Progressing", "Degraded", "Suspended"

_RECORDED: Final = Path(__file__).parent / "recorded"
#: What was recorded of objects in the cluster of tests/e2e/test_argocd.py, by the name of the file, and their health.
RECORDED: Final = {
    "starting": PROGRESSING,
    "serving": HEALTHY,
    "scaled": HEALTHY,
    "scaled-to-zero": SUSPENDED,
    "rolling-out": PROGRESSING,
    "paused": SUSPENDED,
    "refused": DEGRADED,
    "withdrawn": DEGRADED,
    "crashing": DEGRADED,
    "model-gateway": HEALTHY,
}


def script_of(kind: str) -> Path:
    """The health check of a kind."""
    return ARGOCD / names.GROUP / kind / "health.lua"


def health(kind: str, item: Object) -> tuple[str, str]:
    """Status and message, as Argo CD would show them."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    for name in list(lua.globals()):
        if name not in OPENED:
            lua.globals()[name] = None
    lua.globals().obj = _as_table(lua, item)
    answer = lua.execute(script_of(kind).read_text("utf-8"))
    assert set(answer) == {"status", "message"}
    return answer.status, answer.message


def _as_table(lua: Any, value: Any) -> Any:
    """JSON data as Argo CD hands it over: null is nil, so the key is absent."""
    if isinstance(value, dict):
        return lua.table_from({k: _as_table(lua, v) for k, v in value.items() if v is not None})
    if isinstance(value, list | tuple):
        return lua.table_from([_as_table(lua, v) for v in value])
    return value


def recorded(name: str) -> Object:
    """An object as the API server had it."""
    found: Object = yaml.safe_load(_file(name).read_text("utf-8"))
    return found


def is_recorded() -> set[str]:
    """Names of what lies in the folder."""
    return {path.stem for path in _RECORDED.glob("*.yaml")}


def record(name: str, item: Object) -> None:
    """Write an object down; only what Argo CD looks at."""
    metadata = {key: item["metadata"][key] for key in ("name", "namespace", "generation")}
    kept = {key: item[key] for key in ("apiVersion", "kind", "spec", "status")} | {"metadata": metadata}
    _RECORDED.mkdir(exist_ok=True)
    _file(name).write_text(yaml.safe_dump(kept, sort_keys=True, width=120), "utf-8")


def _file(name: str) -> Path:
    assert name in RECORDED, f"{name} has no health in RECORDED"
    return _RECORDED / f"{name}.yaml"
