"""The traps of vLLM, by where they are covered."""

import sys
from collections.abc import Callable

import pytest

from draftmark.engines.vllm import RESERVED
from tests.engines.vllm import test_command_line, test_options, test_pod, test_properties, test_refusals, test_sources
from tests.engines.vllm.ask import TABLE, refused
from tests.facts import test_gpu_failures
from tests.monitoring import test_prometheus

#: What a renderer does that knows vLLM by its README only, and the tests that fail when ours does it.
TRAPS: dict[str, tuple[Callable[..., None], ...]] = {
    "relies on the default bind address": (test_command_line.test_the_command_line_of_the_smallest_service,),
    "puts `vllm serve` behind an entry point that is `vllm serve`": (
        test_pod.test_the_command_does_not_depend_on_the_images_entry_point,
    ),
    "lets a Service called vllm set VLLM_PORT": (
        test_pod.test_no_service_puts_its_address_into_the_environment,
        test_refusals.test_variables_that_pass_the_check_of_arguments_are_refused,
    ),
    "leaves the default shutdown, which aborts every stream": (
        test_pod.test_the_engine_drains_as_long_as_a_request_may_take_and_is_killed_later,
    ),
    "gives as much grace as the drain takes": (
        test_pod.test_the_engine_drains_as_long_as_a_request_may_take_and_is_killed_later,
    ),
    "has a liveness probe and no start-up probe": (test_pod.test_probes_ask_the_server_itself,),
    "asks the port, which is bound before the model is loaded": (test_pod.test_probes_ask_the_server_itself,),
    "kills or takes out an engine that is busy for a while": (
        test_pod.test_a_busy_engine_is_neither_restarted_nor_taken_out_at_once,
    ),
    "waits an hour for an engine that gives up after ten minutes": (
        test_pod.test_the_engine_gives_up_before_the_kubelet_does,
    ),
    "keeps a server whose engine has ended": (
        test_refusals.test_variables_that_pass_the_check_of_arguments_are_refused,
    ),
    "passes one memory fraction to every engine": (
        test_pod.test_a_pod_has_as_many_gpus_as_tensor_says,
        test_pod.test_on_cpu_the_kv_cache_follows_the_container_and_not_the_node,
    ),
    "does not understand an engine that finds the GPU's memory taken": (
        test_gpu_failures.test_a_gpu_failure_is_told_with_its_line_and_the_way_out,
    ),
    "leaves the context at the model's largest": (test_command_line.test_the_command_line_of_the_smallest_service,),
    "leaves batch sizes to the GPU's memory": (
        test_command_line.test_batch_sizes_follow_the_kind_of_workload_with_a_reason,
    ),
    "has a context that is longer than a step, with chunked prefill off": (
        test_command_line.test_a_prompt_that_may_not_be_read_in_parts_fits_in_a_step,
        test_command_line.test_a_step_takes_a_token_of_every_request_and_a_prompt_where_it_must,
    ),
    "passes parser names of another engine": (test_refusals.test_parsers_of_other_engines_are_refused,),
    "lets the model choose tools, and names no parser": (
        test_refusals.test_a_choice_of_tools_without_a_parser_is_refused,
    ),
    "asks for metrics by the names of one version": (test_prometheus.test_rules_make_and_tell_what_they_should,),
    "switches the metrics off": (test_refusals.test_a_reserved_flag_is_refused_with_the_field_to_use,),
    "gives the engine a key, which leaves half of its paths open": (
        test_refusals.test_a_reserved_flag_is_refused_with_the_field_to_use,
        test_refusals.test_variables_that_pass_the_check_of_arguments_are_refused,
    ),
    "loads adapters at run time, on one replica": (
        test_options.test_adapters_are_loaded_at_the_start_under_their_names,
        test_refusals.test_variables_that_pass_the_check_of_arguments_are_refused,
    ),
    "gives adapters a larger rank than the engine makes room for": (test_options.test_the_largest_rank_fits,),
    "assumes that Ray is chosen, or is not": (test_pod.test_a_pod_has_as_many_gpus_as_tensor_says,),
    "passes flags that were removed": (test_refusals.test_removed_flags_are_refused_with_what_replaces_them,),
    "passes one version's flags to another": (test_refusals.test_a_flag_is_checked_against_the_version_that_runs,),
    "writes the beginning of a flag": (
        test_properties.test_every_command_line_that_is_rendered_passes_the_flag_table_and_is_ours,
        test_refusals.test_reserved_flags_are_refused_for_a_version_without_a_table_too,
    ),
    "overlooks the dotted keys and the negations of flags": (
        test_refusals.test_reserved_flags_are_refused_for_a_version_without_a_table_too,
    ),
    "uses the image tag `latest`, whose CUDA the driver may not have": (
        test_command_line.test_every_hardware_has_its_image,
        test_gpu_failures.test_a_gpu_failure_is_told_with_its_line_and_the_way_out,
    ),
    "runs as a user whom the image does not know": (test_pod.test_everything_that_is_written_has_a_place,),
    "writes to a root file system that is read-only": (test_pod.test_everything_that_is_written_has_a_place,),
    "has 64 MB of shared memory": (test_pod.test_shared_memory_has_room_for_what_leaves_the_gpu,),
    "has shared memory that the container's limit does not allow": (
        test_options.test_an_option_that_cannot_be_had_is_refused_with_the_way_out,
    ),
    "mounts the model's claim for writing, so that a second pod waits": (
        test_sources.test_the_model_is_the_first_argument_and_its_volume_is_read_only,
    ),
    "shares a cache among pods": (test_pod.test_everything_that_is_written_has_a_place,),
    "keeps the metrics of several processes in a folder with old files": (
        test_refusals.test_variables_that_pass_the_check_of_arguments_are_refused,
    ),
    "lets the engine call the model by its path, where no hub is": (
        test_command_line.test_the_command_line_of_the_smallest_service,
        test_sources.test_nothing_asks_the_hub_where_the_model_is_at_hand,
    ),
    "passes the hub's token as an argument": (
        test_sources.test_the_token_is_an_environment_variable_from_its_secret_and_never_an_argument,
    ),
    "sends statistics to the engine's makers": (test_pod.test_nothing_is_told_to_others,),
    "serves GGUF": (test_sources.test_what_vllm_cannot_read_is_refused_with_the_way_out,),
}

#: Traps of what needs more than one pod, or another engine's pod to talk to. As long as a replica is one pod each is
#: refused by the flags that begin it, and the same test shows that they are.
TRAPS_OF_SEVERAL_PODS: dict[str, tuple[str, ...]] = {
    "probes every rank, of which one has a server": ("--headless", "--node-rank"),
    "sends requests to every pod of a group": ("--headless", "--nnodes"),
    "restarts one worker of a group": ("--nnodes", "--master-addr"),
    "asks for data parallelism of a dense model behind a balancer": (
        "--data-parallel-size", "--data-parallel-external-lb", "--data-parallel-hybrid-lb",
    ),
    "copies JSON of an older KV connector": ("--kv-transfer-config",),
    "lets decode look for prefill at localhost": ("--kv-transfer-config",),
    "rolls prefill before decode, with another version": ("--kv-transfer-config",),
    "puts one Service before prefill and decode": ("--kv-transfer-config", "--ec-transfer-config"),
}  # fmt: skip


def test_every_trap_is_covered_by_a_test() -> None:
    """A test that is renamed or removed is missed when this file is read; one that pytest would not run is missed here."""
    for tests in TRAPS.values():
        assert tests
        for test in tests:
            assert getattr(sys.modules[test.__module__], test.__name__) is test
            assert test.__name__.startswith("test_")


@pytest.mark.parametrize("trap", TRAPS_OF_SEVERAL_PODS)
def test_a_trap_of_several_pods_is_refused(trap: str) -> None:
    for flag in TRAPS_OF_SEVERAL_PODS[trap]:
        assert TABLE.find(flag) is not None
        answer = refused(("engine.args", [f"{flag}=1"]))
        assert answer.code == "InvalidArgs"
        assert RESERVED[flag] in answer.message
