"""What engines of safetensors refuse for the same reasons, so that they say it in the same words.

Each function returns the first thing that the engine cannot do, or None. `title` is the engine's name as its makers
write it, `engine` as users do in `engine.name`.
"""

from collections.abc import Mapping

from draftmark.api.model_uri import ClaimModel, HubModel, ImageModel, ModelSource, UrlModel, parse_model_uri
from draftmark.engines.engine import Wanted
from draftmark.engines.flag_table import MAX_PROBLEMS, FlagTable, check_args, names_in
from draftmark.facts.quantity import parse_quantity
from draftmark.plan import Unplannable

__all__ = [
    "argument_problems",
    "offload_bytes",
    "refuse_env",
    "refuse_gpu_count",
    "refuse_offload",
    "refuse_sources",
]


def refuse_sources(wanted: Wanted, title: str) -> Unplannable | None:
    """Sources of model, adapters and guessing model that the engine cannot read, and an adapter with the model's name."""
    model = wanted.spec.model
    if problem := _unservable(wanted.source, title):
        return Unplannable(code="UnsupportedModelFormat", message=f"model.uri '{model.uri[:120]}' {problem}")
    for adapter in model.adapters or ():
        field_name = f"model.adapters['{adapter.name}']"
        if problem := _unservable(parse_model_uri(adapter.uri), title):
            return Unplannable(
                code="UnsupportedModelFormat", message=f"{field_name}.uri '{adapter.uri[:120]}' {problem}"
            )
        if adapter.name == wanted.served_name:
            return Unplannable(
                code="UnsupportedOption",
                message=f"{field_name} has the name of the model itself, and requests could not tell them apart. Name the "
                "adapter or model.name otherwise.",
            )
    speculative = wanted.options.speculative
    if speculative is None or speculative.uri is None:
        return None
    if problem := _unservable(parse_model_uri(speculative.uri), title):
        return Unplannable(
            code="UnsupportedModelFormat",
            message=f"engine.options.speculative.uri '{speculative.uri[:120]}' {problem}",
        )
    return None


def _unservable(source: ModelSource, title: str) -> str | None:
    """What is wrong with a source; these engines take repositories of the hub and folders."""
    match source:
        case UrlModel():
            return (
                f"is a file behind a URL, which {title} does not download. Use hf://ORG/REPO, or bring the model to a claim "
                "(pvc://CLAIM/FOLDER) or into an image (oci://IMAGE:TAG#FOLDER)."
            )
        case HubModel(quantization=quantization, file=file) if quantization is not None or file is not None:
            return (
                f"names one file or one quantization of a repository, as GGUF has them; {title} takes a whole repository of "
                "safetensors. Write hf://ORG/REPO, or use engine.name llama-cpp for GGUF."
            )
        case ClaimModel(path=path) | ImageModel(path=path) if path is not None and path.endswith(".gguf"):
            return (
                f"is a GGUF file, and {title} reads none. Use engine.name llama-cpp, or a folder with config.json and "
                "safetensors."
            )
        case ClaimModel(path=path) | ImageModel(path=path) if path is not None and path.endswith(
            (".safetensors", ".bin", ".pt", ".pth")
        ):
            return f"is one file of a model; {title} takes the folder that holds config.json as well. Name the folder."
        case _:
            return None


def refuse_gpu_count(wanted: Wanted, engine: str) -> Unplannable | None:
    """GPUs of a pod that neither tensor nor pipeline parallelism uses: so many are counted, and nothing says the split."""
    layout = wanted.layout
    used = (layout.tensor or _tensor(wanted)) * layout.pipeline
    if layout.gpus and layout.gpus != used:
        return Unplannable(
            code="UnsupportedOption",
            message=f"accelerator.count is {layout.gpus}, and a pod of {engine} uses as many GPUs as parallelism.tensor says, "
            f"which is {used}. Set parallelism.tensor: {layout.gpus}, or remove accelerator.count.",
        )
    return None


def _tensor(wanted: Wanted) -> int:
    given = wanted.spec.parallelism
    return (given is not None and given.tensor) or 1


def refuse_offload(wanted: Wanted, *, least: str, needed_bytes: int = 0, needed_for: str = "") -> Unplannable | None:
    """Memory for the KV cache that leaves the GPU.

    Args:
        least: The smallest size that the engine takes, as a quantity.
        needed_bytes: Bytes of the container that the engine wants beside it.
        needed_for: What these are for, if there are any.
    """
    quantity = wanted.options.kv_offload
    if quantity is None:
        return None
    size = parse_quantity(quantity)
    resources = wanted.spec.engine.resources
    limit_text = ((resources.limits or {}) if resources is not None else {}).get("memory")
    limit = parse_quantity(limit_text or "")
    if size is None or size < offload_bytes(least):
        problem = f"'{quantity}' is no size of memory. Write a number of at least {least} with a suffix, such as 32Gi."
    elif not wanted.layout.gpus:
        problem = (
            f"{quantity} takes what the GPU has no room for, and accelerator is not set. Remove it, or set accelerator."
        )
    elif wanted.options.prefix_caching is False:
        problem = (
            f"{quantity} keeps the KV cache of prompts for later requests, which engine.options.prefixCaching: false "
            "switches off. Remove one of them."
        )
    elif limit is not None and size + needed_bytes >= limit:
        problem = (
            f"{quantity} is memory of the container, whose limit is {limit_text}{needed_for}. Raise "
            "engine.resources.limits.memory above it, or make kvOffload smaller."
        )
    else:
        return None
    return Unplannable(code="UnsupportedOption", message=f"engine.options.kvOffload {problem}")


def offload_bytes(quantity: str | None) -> float:
    """A size of memory in bytes; 0 where there is none."""
    amount = parse_quantity(quantity or "0")
    return float(amount) if amount is not None else 0.0


def refuse_env(wanted: Wanted, owners: Mapping[str, str]) -> Unplannable | None:
    """Variables that do what a flag does which is not the user's, past the check of arguments.

    Args:
        owners: Names, and what sets each of them.
    """
    taken = sorted(owners.keys() & {*wanted.env_names})
    if not taken:
        return None
    told = "; ".join(f"{name} is set by {owners[name]}" for name in taken[:3])
    return Unplannable(
        code="InvalidEnv",
        message=f"engine.env sets {', '.join(taken[:5])}, past the check of arguments. {told}. Remove them.",
    )


def argument_problems(wanted: Wanted, default: FlagTable, reserved: Mapping[str, str]) -> list[str]:
    """What is wrong with the user's arguments.

    Args:
        default: The table of the engine's default version: for a version whose flags are not known, its names say what
            is not the user's to set.
        reserved: For a flag that Draftmark writes itself: what sets it.
    """
    if wanted.table is not None:
        return [problem.message for problem in check_args(wanted.table, wanted.args, reserved)]
    # argparse takes the beginning of a name for the name.
    owners = {name: owner for flag, owner in reserved.items() for name in default.by_name[flag].names}
    problems = list[str]()
    for name in names_in(wanted.args):
        is_whole = default.find(name) is not None
        found = [owner for spelling, owner in owners.items() if spelling == name]
        if not is_whole and len(name) > 1:
            found += [owner for spelling, owner in owners.items() if spelling.startswith(name)]
        if found:
            problems.append(f"{name[:80]} cannot be given in engine.args: it is set by {found[0]}. Remove it.")
    return problems[:MAX_PROBLEMS]
