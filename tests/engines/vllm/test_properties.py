"""What holds for every service of vLLM."""

from hypothesis import given
from hypothesis import strategies as st

from draftmark.engines.flag_table import check_args
from draftmark.engines.vllm import OVERRIDABLE, RESERVED
from tests.engines.vllm.ask import TABLE, args, pod
from tests.specs import Object

URIS = st.sampled_from(["hf://org/repo", "pvc://weights/llama", "oci://host/a:1", "oci://host/a:1#m"])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "prefixCaching": st.just(True),
        "chunkedPrefill": st.booleans(),
        "structuredOutput": st.just(True),
        "kvCacheDType": st.sampled_from(["auto", "fp8", "nvfp4"]),
        "kvOffload": st.sampled_from(["1Mi", "1.5Gi", "64Gi", "3G", "1e12"]),
        "apiServerCount": st.integers(1, 16),
        "speculative": st.one_of(
            st.builds(lambda m, t: {"method": m, "tokens": t}, st.sampled_from(["ngram", "mtp"]), st.integers(1, 32)),
            st.builds(
                lambda m, t, u: {"method": m, "tokens": t, "uri": u},
                st.sampled_from(["draftModel", "eagle", "eagle3"]), st.integers(1, 32), URIS,
            ),
        ),
    },
)  # fmt: skip
NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:/-]{0,20}\Z")
SPECS = st.builds(
    lambda uri, name, options, adapters, quantization, kind, concurrency, tensor, expert: {
        "model": {
            "uri": uri, "name": name, "adapters": [{"name": f"lora-{i}", "uri": u} for i, u in enumerate(adapters)],
            **({"quantization": quantization} if quantization else {}),
        },
        "engine": {"name": "vllm", "options": options},
        "accelerator": {"product": "a"},
        "parallelism": {"tensor": tensor, **({"expert": True} if expert and tensor > 1 else {})},
        "workload": {**({"kind": kind} if kind else {}), **({"concurrency": concurrency} if concurrency else {})},
    },
    uri=URIS, name=NAMES, options=OPTIONS, adapters=st.lists(URIS, max_size=3),
    quantization=st.sampled_from([None, "fp8", "compressed-tensors"]),
    kind=st.sampled_from([None, "chat", "batch", "interactive"]), concurrency=st.none() | st.integers(1, 1024),
    tensor=st.integers(1, 16), expert=st.booleans(),
)  # fmt: skip


@given(wanted=SPECS)
def test_every_command_line_that_is_rendered_passes_the_flag_table_and_is_ours(wanted: Object) -> None:
    argv = args(base=wanted)
    model, flags = argv[0], argv[1:]
    assert not model.startswith("-")
    assert check_args(TABLE, flags, {}) == ()
    written = [flag for word in flags if word.startswith("--") and (flag := TABLE.find(word))]
    assert len({flag.name for flag in written}) == len(written), "a flag twice: the last one wins, with a warning"
    owned = {flag.name for name in RESERVED if (flag := TABLE.find(name))}
    # Otherwise a flag of the user's would win over ours without a word.
    assert {flag.name for flag in written} - owned <= {*OVERRIDABLE, "--max-num-batched-tokens"}


@given(wanted=SPECS)
def test_every_pod_has_its_volumes_once_and_mounts_what_it_has(wanted: Object) -> None:
    spec = pod(base=wanted)
    volumes = [v["name"] for v in spec["volumes"]]
    mounts = [m["name"] for m in spec["containers"][0]["volumeMounts"]]
    paths = [m["mountPath"] for m in spec["containers"][0]["volumeMounts"]]
    assert sorted(volumes) == sorted(mounts) == sorted(set(volumes))
    assert len(set(paths)) == len(paths)
