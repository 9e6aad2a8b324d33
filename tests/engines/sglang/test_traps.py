"""The traps of SGLang, by where they are covered."""

import sys
from collections.abc import Callable

import pytest

from draftmark.engines.sglang import RESERVED
from tests.engines.sglang import (
    test_command_line,
    test_options,
    test_pod,
    test_properties,
    test_refusals,
    test_sources,
)
from tests.engines.sglang.ask import TABLE, refused
from tests.facts import test_gpu_failures
from tests.monitoring import test_prometheus

#: What a renderer does that knows SGLang by its README only, and the tests that fail when ours does it.
TRAPS: dict[str, tuple[Callable[..., None], ...]] = {
    "relies on the default bind address, which is localhost": (
        test_command_line.test_the_command_line_of_the_smallest_service,
    ),
    "relies on the image's entry point, which is a shell": (
        test_command_line.test_the_command_does_not_depend_on_the_images_entry_point_and_asks_nobody_what_the_model_is,
    ),
    "lets the engine ask the hub whether the model draws pictures": (
        test_command_line.test_the_command_does_not_depend_on_the_images_entry_point_and_asks_nobody_what_the_model_is,
    ),
    "lets a Service called sglang set SGLANG_PORT": (
        test_pod.test_no_service_puts_its_address_into_the_environment,
        test_refusals.test_variables_that_pass_the_check_of_arguments_are_refused,
    ),
    "leaves a drain without an end to itself": (
        test_pod.test_the_engine_drains_as_long_as_a_request_may_take_and_is_killed_later,
    ),
    "gives as much grace as a request takes, and no time to stop": (
        test_pod.test_the_engine_drains_as_long_as_a_request_may_take_and_is_killed_later,
    ),
    "lets several HTTP processes stop one after another": (
        test_options.test_an_option_that_cannot_be_had_is_refused_with_the_way_out,
    ),
    "probes /health, which generates a token, with the time-out of a second": (
        test_pod.test_only_liveness_asks_for_a_token_and_waits_for_it,
    ),
    "does not find an engine that hangs behind a server that answers": (
        test_pod.test_only_liveness_asks_for_a_token_and_waits_for_it,
    ),
    "kills or takes out an engine that reads a long prompt": (
        test_pod.test_a_busy_engine_is_neither_restarted_nor_taken_out_at_once,
    ),
    "waits an hour for an engine whose first request may take ten minutes": (
        test_pod.test_the_request_that_warms_up_has_as_long_as_the_probe_waits,
    ),
    "forgets the flag without which there are no metrics": (test_pod.test_metrics_are_on,),
    "counts each request once for each GPU": (test_refusals.test_a_reserved_flag_is_refused_with_the_field_to_use,),
    "asks for metrics by the names of one version": (test_prometheus.test_rules_make_and_tell_what_they_should,),
    "keeps the metrics of several processes in a folder with old files": (
        test_refusals.test_variables_that_pass_the_check_of_arguments_are_refused,
        test_pod.test_everything_that_is_written_has_a_place,
    ),
    "passes one memory fraction to every engine": (test_pod.test_the_share_of_the_gpu_is_sglangs_own,),
    "gives a small GPU steps so large that the model has no room": (
        test_command_line.test_tokens_of_a_step_are_sglangs_to_choose_by_the_gpus_memory,
    ),
    "takes the KV cache of all memory that is free, on CPU": (
        test_pod.test_on_cpu_the_kv_cache_has_room_for_all_requests_and_no_more,
    ),
    "leaves the context at the model's largest": (test_command_line.test_the_command_line_of_the_smallest_service,),
    "thinks that reading in parts lets others have a token in between": (
        test_command_line.test_an_even_flow_of_tokens_has_small_steps_and_a_token_for_all_between_two_of_them,
        test_options.test_options_are_spelled_the_engines_way,
    ),
    "has a prompt that is longer than a step, with chunked prefill off": (
        test_command_line.test_a_prompt_that_may_not_be_read_in_parts_fits_in_a_step,
        test_command_line.test_a_step_takes_a_token_of_every_request_and_a_prompt_where_it_must,
    ),
    "has parts of prompts that no number of pages fills": (
        test_command_line.test_parts_of_a_prompt_fill_whole_pages_whatever_was_kept,
    ),
    "offloads for each GPU what was meant for all": (
        test_options.test_memory_for_the_kv_cache_is_for_all_gpus_together,
    ),
    "offloads what the container has, without the 10 GiB that must stay free": (
        test_options.test_an_option_that_cannot_be_had_is_refused_with_the_way_out,
    ),
    "offloads a KV cache that is switched off": (
        test_options.test_an_option_that_cannot_be_had_is_refused_with_the_way_out,
    ),
    "asks for an adapter by its bare name, and gets the model without it": (
        test_options.test_an_option_that_cannot_be_had_is_refused_with_the_way_out,
        test_options.test_adapters_are_loaded_at_the_start_under_the_names_that_requests_have,
    ),
    "serves a model whose name has a colon": (
        test_options.test_an_option_that_cannot_be_had_is_refused_with_the_way_out,
    ),
    "loads adapters beside a draft model": (
        test_options.test_an_option_that_cannot_be_had_is_refused_with_the_way_out,
    ),
    "passes parser names of another engine": (test_refusals.test_values_of_other_engines_are_refused,),
    "gives the engine a key": (test_refusals.test_a_reserved_flag_is_refused_with_the_field_to_use,),
    "lets requests bring code": (test_refusals.test_a_reserved_flag_is_refused_with_the_field_to_use,),
    "passes flags that were removed": (test_refusals.test_removed_flags_are_refused_with_what_replaces_them,),
    "writes the beginning of a flag, such as --tp": (
        test_refusals.test_spellings_that_only_other_parsers_know_are_refused,
        test_refusals.test_reserved_flags_are_refused_for_a_version_without_a_table_too,
        test_properties.test_every_command_line_that_is_rendered_passes_the_flag_table_and_is_ours,
    ),
    "writes underscores or dotted keys, as vLLM takes them": (
        test_refusals.test_spellings_that_only_other_parsers_know_are_refused,
    ),
    "uses the image tag `latest`, whose CUDA the driver may not have": (
        test_command_line.test_hardware_has_its_image_where_there_is_one,
        test_gpu_failures.test_a_gpu_failure_is_told_with_its_line_and_the_way_out,
    ),
    "takes NVIDIA's image, or one family's, for any AMD GPU": (
        test_command_line.test_an_amd_gpu_needs_an_image_that_is_named,
    ),
    "runs as a user whom the image does not know": (test_pod.test_everything_that_is_written_has_a_place,),
    "writes to a root file system that is read-only": (test_pod.test_everything_that_is_written_has_a_place,),
    "has 64 MB of shared memory": (
        test_pod.test_shared_memory_has_room_for_what_processes_of_several_gpus_tell_each_other,
    ),
    "mounts the model's claim for writing, so that a second pod waits": (
        test_sources.test_the_model_has_its_flag_and_its_volume_is_read_only,
    ),
    "lets the engine call the model by its path, where no hub is": (
        test_command_line.test_the_command_line_of_the_smallest_service,
        test_sources.test_nothing_asks_the_hub_where_the_model_is_at_hand,
    ),
    "passes the hub's token as an argument": (
        test_sources.test_the_token_is_an_environment_variable_from_its_secret_and_never_an_argument,
    ),
    "serves GGUF": (test_sources.test_what_sglang_cannot_read_is_refused_with_the_way_out,),
}

#: Traps of what needs more than one pod, or another engine's pod to talk to. As long as a replica is one pod each is
#: refused by the flags that begin it, and the same test shows that they are.
TRAPS_OF_SEVERAL_PODS: dict[str, tuple[str, ...]] = {
    "probes every rank, of which all but one have a server that always says yes": ("--nnodes", "--node-rank"),
    "sends requests to every pod of a group": ("--nnodes",),
    "restarts one worker of a group": ("--nnodes", "--dist-init-addr"),
    "opens one port between nodes, where seven are needed": ("--dist-init-addr",),
    "asks for data parallelism over nodes": ("--dp-size", "--nnodes"),
    "puts one Service before prefill and decode": ("--disaggregation-mode",),
    "sends KV cache over a network that has no RDMA": ("--disaggregation-transfer-backend",),
    "waits for work in queues that nobody counts": ("--disaggregation-mode",),
}


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
