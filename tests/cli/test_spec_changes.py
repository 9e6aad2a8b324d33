"""Changes of the spec: after a rollback it asks for exactly the revision that it was rolled back to."""

from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.api import names
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.cli import spec_changes
from draftmark.cli.spec_changes import (
    NoWayBack,
    choose_target,
    go_back,
    kept_revisions,
    operations,
    retry_time,
    revision_of,
    spec_diff,
    who_else_writes,
)
from tests.cli.world import NEW_SPEC, OLD, OLD_SPEC, controller_revision, hash_of, service
from tests.specs import MINUTE, T0

Json = dict[str, Any]

texts = st.sampled_from(["a", "b-1", "x86"])
models = st.fixed_dictionaries(
    {"uri": st.sampled_from(["pvc://c/m.gguf", "hf://org/repo:Q4_K_M"])},
    optional={"name": texts, "maxContextLength": st.integers(16, 99)},
)
engines = st.fixed_dictionaries(
    {"name": st.just("llama-cpp")},
    optional={
        "version": texts,
        "args": st.lists(texts, max_size=2),
        "env": st.lists(texts, max_size=2, unique=True).map(
            lambda found: [{"name": name[0], "value": "1"} for name in found]
        ),
        "resources": st.fixed_dictionaries(
            {},
            optional={"limits": st.dictionaries(st.sampled_from(["cpu", "memory"]), st.sampled_from([2, "2", "1Gi"]))},
        ),
        "options": st.fixed_dictionaries({}, optional={"prefixCaching": st.booleans(), "kvCacheDType": st.just("f16")}),
    },
)
pod_templates = st.fixed_dictionaries(
    {},
    optional={
        "nodeSelector": st.dictionaries(texts, texts, max_size=2),
        "affinity": st.dictionaries(
            texts, st.none() | texts | st.dictionaries(texts, st.none() | texts, max_size=1), max_size=2
        ),
        "tolerations": st.lists(st.fixed_dictionaries({}, optional={"key": texts}), max_size=1),
        "unknownField": st.none() | texts | st.lists(texts, max_size=1),
        "volumes": st.just([{"name": "scratch", "mountPath": "/scratch", "emptyDir": {}}]),
    },
)
rollouts = st.fixed_dictionaries(
    {},
    optional={
        "strategy": st.just("recreate"),
        "maxSurge": st.sampled_from([1, "1", "50%"]),
        "accept": st.sampled_from(["0a0b0c0d", "11111111"]),
    },
)
specs = st.fixed_dictionaries(
    {"model": models, "engine": engines},
    optional={
        "accelerator": st.sampled_from([{"count": 0}, {"product": "H100"}, {"product": "H100", "count": 2}]),
        "replicas": st.integers(0, 3),
        "workload": st.fixed_dictionaries({}, optional={"concurrency": st.integers(1, 4)}),
        "podTemplate": pod_templates,
        "rollout": rollouts,
        "traffic": st.just({"maxQueue": 3}),
        "paused": st.booleans(),
    },
)


def pinned(spec: Json) -> Json:
    """What a ControllerRevision has of a spec."""
    return InferenceServiceSpec.model_validate(spec).pod_affecting()


def apply(item: Json, patch: list[Json]) -> Json:
    """As the API server applies a JSON patch."""
    item = deepcopy(item)
    for operation in patch:
        node, (*trail, last) = item, operation["path"].strip("/").split("/")
        for step in trail:
            node = node[step.replace("~1", "/").replace("~0", "~")]
        last = last.replace("~1", "/").replace("~0", "~")
        if operation["op"] == "test":
            assert node[last] == operation["value"]
        elif operation["op"] == "remove":
            del node[last]
        else:
            node[last] = operation["value"]
    return item


@given(now=specs, before=specs)
def test_after_a_rollback_the_spec_asks_for_that_revision(now: Json, before: Json) -> None:
    wanted = pinned(before)
    (kept,) = kept_revisions([controller_revision(wanted, 1)])
    item = service(now)
    patched = apply(item, operations(item, go_back(now, kept.spec)))
    assert revision_of(patched["spec"]) == kept.hash == names.short_hash(wanted)


@given(now=specs, before=specs)
def test_a_rollback_leaves_everything_else_alone(now: Json, before: Json) -> None:
    new = go_back(now, pinned(before))
    for key in ("replicas", "traffic", "paused"):
        assert new.get(key) == now.get(key)
    rest = {k: v for k, v in now.get("rollout", {}).items() if k != "accept"}
    assert {k: v for k, v in new.get("rollout", {}).items() if k != "accept"} == rest


@given(spec=specs)
def test_back_to_the_present_revision_changes_nothing_that_counts(spec: Json) -> None:
    once = go_back(spec, pinned(spec))
    assert go_back(once, pinned(once)) == once
    assert revision_of(once) == revision_of(spec)


@given(now=specs, before=specs)
def test_a_diff_is_empty_only_where_nothing_changes(now: Json, before: Json) -> None:
    assert (spec_diff(now, before) == []) is (now == before)


@given(spec=specs)
def test_resume_ends_a_pause_and_nothing_else(spec: Json) -> None:
    assert spec_changes.resume({**spec, "paused": True}) == {k: v for k, v in spec.items() if k != "paused"}


def test_the_diff_is_as_reviewed() -> None:
    old = {
        "model": {"uri": "pvc://c/a.gguf", "maxContextLength": 8192},
        "engine": {"name": "llama-cpp", "args": ["--a"], "resources": {"limits": {"cpu": "2"}}},
        "podTemplate": {"nodeSelector": {"disk": "ssd"}, "metadata": {}},
        "rollout": {"accept": "3f2a1b4c"},
    }
    new = {
        "model": {"uri": "pvc://c/a.gguf", "maxContextLength": 4096},
        "engine": {"name": "llama-cpp", "args": ["--a", "--b"], "resources": {"limits": {"cpu": 2}}},
        "accelerator": {"count": 0},
    }
    assert spec_diff(old, new) == [
        "+ accelerator.count: 0",
        '~ engine.args: ["--a"] → ["--a", "--b"]',
        '~ engine.resources.limits.cpu: "2" → 2',
        "~ model.maxContextLength: 8192 → 4096",
        "- podTemplate.metadata: {}",
        "- podTemplate.nodeSelector.disk: ssd",
        "- rollout.accept: 3f2a1b4c",
    ]


def kept(*specs: Json) -> list[spec_changes.KeptRevision]:
    """Revisions, oldest first."""
    return kept_revisions(controller_revision(pinned(spec), n + 1) for n, spec in enumerate(specs))


THIRD_SPEC: Json = {**OLD_SPEC, "workload": {"concurrency": 2}}


def test_the_default_is_the_newest_before_the_present_one() -> None:
    item = service(NEW_SPEC, revisions=None)
    assert choose_target(item, kept(THIRD_SPEC, OLD_SPEC, NEW_SPEC), None).hash == OLD
    with pytest.raises(NoWayBack, match="no revision before"):
        choose_target(item, kept(NEW_SPEC, OLD_SPEC), None)


def test_a_revision_that_never_served_is_passed_over() -> None:
    revisions = [{"hash": OLD, "phase": "Failed", "provenAt": "2026-01-01T09:00:00Z"}]
    item = service(NEW_SPEC, revisions=revisions)
    assert choose_target(item, kept(THIRD_SPEC, OLD_SPEC, NEW_SPEC), None).hash == hash_of(THIRD_SPEC)
    assert choose_target(item, kept(THIRD_SPEC, OLD_SPEC, NEW_SPEC), OLD).hash == OLD


def test_a_withdrawn_candidate_leads_back_to_what_serves() -> None:
    item = service(NEW_SPEC)
    assert choose_target(item, kept(OLD_SPEC, NEW_SPEC), None).hash == OLD


def test_a_spec_that_was_never_pinned_leads_back_to_the_newest() -> None:
    item = service({**NEW_SPEC, "workload": {"concurrency": 9}}, revisions=None)
    assert choose_target(item, kept(OLD_SPEC, NEW_SPEC), None).hash == hash_of(NEW_SPEC)
    broken = service({"model": {}}, revisions=None)
    assert choose_target(broken, kept(OLD_SPEC, NEW_SPEC), None).hash == hash_of(NEW_SPEC)


@pytest.mark.parametrize(
    ("to", "told"), [("zz", "no kept revision"), ("", "more than one"), (hash_of(NEW_SPEC), "already")]
)
def test_a_name_that_fits_none_or_several_is_refused(to: str, told: str) -> None:
    with pytest.raises(NoWayBack, match=told):
        choose_target(service(NEW_SPEC), kept(OLD_SPEC, NEW_SPEC), to)


def test_what_is_damaged_is_left_out() -> None:
    edited = controller_revision(OLD_SPEC, 1)
    edited["data"]["spec"]["engine"]["name"] = "other"
    bare = controller_revision(OLD_SPEC, 1, labels=None)
    assert kept_revisions([edited, bare, {"metadata": {}}, controller_revision(NEW_SPEC, 2)]) == kept_revisions(
        [controller_revision(NEW_SPEC, 2)]
    )


def test_annotations_are_added_where_there_are_none() -> None:
    item = service()
    assert apply(item, spec_changes.annotate(item, "a/b~c", "1"))["metadata"]["annotations"] == {"a/b~c": "1"}
    item["metadata"]["annotations"] = {"x": "y"}
    assert apply(item, spec_changes.annotate(item, "a/b", "1"))["metadata"]["annotations"] == {"x": "y", "a/b": "1"}


@pytest.mark.parametrize(("behind", "expected"), [(-MINUTE, T0), (MINUTE, T0 + MINUTE + timedelta(seconds=1))])
def test_a_retry_is_after_the_failure_whatever_our_clock_says(behind: timedelta, expected: datetime) -> None:
    failed = [(T0 + behind).isoformat(), None, "", 1]
    assert retry_time(failed, T0) == expected


def test_who_keeps_the_object_elsewhere() -> None:
    item = service()
    assert who_else_writes(item) is None
    item["metadata"]["annotations"] = {
        "argocd.argoproj.io/tracking-id": "serving:draftmark.dev/InferenceService:m/llama"
    }
    assert who_else_writes(item) == "Argo CD (serving:draftmark.dev/InferenceService:m/llama)"
    item["metadata"] |= {"annotations": None, "labels": {"kustomize.toolkit.fluxcd.io/name": "serving"}}
    assert who_else_writes(item) == "Flux (serving)"
