"""Whether anything would be decided by the facts of a model. Only then is a Job started to read them."""

from typing import Final

from draftmark.api.defaults import Defaults
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.facts.nodes import ClusterFacts
from draftmark.planner.hardware import can_get, has_gpus
from draftmark.planner.planner import GPU_RESOURCES

__all__ = ["UNKNOWN", "needs_facts"]

#: Code of the `Unplannable` that says: without the facts of the model there is no plan. It is no reason not to ask.
UNKNOWN: Final = "ModelUnknown"


def needs_facts(spec: InferenceServiceSpec, cluster: ClusterFacts, defaults: Defaults) -> bool:
    """Whether a plan for this spec depends on what is known of the model.

    True for GPUs whose layout is left open, or where the longest context is: memory is summed per GPU, and what is not
    written follows from the sum; and where no accelerator is written and the cluster has GPUs to choose from, or can get
    some. False on CPU: the sum there is a check, and nothing is chosen by it. And False where accelerator, degree and
    context are written: such a service is deployed as given.
    """
    accelerator = spec.accelerator
    if spec.model.architecture is not None:
        return False
    if accelerator is None:
        return has_gpus(cluster.nodes or (), GPU_RESOURCES) or can_get(defaults, GPU_RESOURCES)
    if accelerator.count == 0:
        return False
    degree = accelerator.count or (spec.parallelism is not None and spec.parallelism.tensor)
    return not degree or spec.model.max_context_length is None
