"""What becomes of services of one engine: plan, pod, command line, environment, or a refusal."""

from dataclasses import dataclass
from typing import Any

from draftmark.api.defaults import Defaults
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.facts.nodes import ClusterFacts
from draftmark.plan import Plan, Unplannable
from draftmark.planner.planner import make_plan
from draftmark.render.pod import render_pod_template
from tests.specs import Object, parse, with_field

NO_DEFAULTS = Defaults()


@dataclass(frozen=True, slots=True)
class Rendering:
    """Services of one engine, each the smallest one, or `base`, with changes: path and value."""

    smallest: Object

    def asked(self, *changes: tuple[str, Any], base: Object | None = None) -> InferenceServiceSpec:
        wanted = self.smallest if base is None else base
        for path, value in changes:
            wanted = with_field(wanted, path, value)
        return parse(wanted)

    def pod(self, *changes: tuple[str, Any], base: Object | None = None) -> Any:
        """The pod's spec, from the service's own."""
        spec = self.asked(*changes, base=base)
        plan = planned(spec)
        assert isinstance(plan, Plan), plan
        return render_pod_template("tiny", spec, plan, NO_DEFAULTS)["spec"]

    def args(self, *changes: tuple[str, Any], base: Object | None = None) -> list[str]:
        found: list[str] = self.pod(*changes, base=base)["containers"][0]["args"]
        return found

    def env(self, *changes: tuple[str, Any], base: Object | None = None) -> dict[str, Any]:
        variables = self.pod(*changes, base=base)["containers"][0]["env"]
        return {e["name"]: e.get("value") or e["valueFrom"] for e in variables}

    def refused(self, *changes: tuple[str, Any], base: Object | None = None) -> Unplannable:
        answer = planned(self.asked(*changes, base=base))
        assert isinstance(answer, Unplannable), answer
        assert answer.message.endswith(".")
        return answer


def planned(spec: InferenceServiceSpec, keep: Plan | None = None) -> Plan | Unplannable:
    return make_plan(spec, name="tiny", cluster=ClusterFacts(), defaults=NO_DEFAULTS, keep=keep)


def value_of(argv: list[str], flag: str) -> str | None:
    """The word after a flag; the flag stands there once at most."""
    assert argv.count(flag) <= 1
    return argv[argv.index(flag) + 1] if flag in argv else None
