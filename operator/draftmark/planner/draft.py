"""The draft model of speculative decoding: its part of the memory sum, as far as it is known."""

from dataclasses import dataclass

from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.engines.engine import Engine
from draftmark.facts.model_catalogue import catalogue_facts
from draftmark.facts.model_memory import UnknownWeights, WeightBytes, weight_bytes
from draftmark.facts.model_parameters import parameters
from draftmark.facts.models import ModelFacts
from draftmark.plan import Reason
from draftmark.planner.memory import Share, gib


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What guesses tokens, and what of it is in the sum."""

    #: None: there is no draft model, or nothing is known of it.
    share: Share | None = None
    reason: Reason | None = None

    @property
    def facts(self) -> ModelFacts | None:
        return self.share.facts if self.share is not None else None


def draft_of(spec: InferenceServiceSpec, engine: Engine, main: WeightBytes) -> Draft:
    """The draft model that a service asks for.

    Only well-known models are found: a Job asks about the served model, and not about this one. One that is not known
    does not stop a service; the plan says that it is not in the sum.

    Args:
        main: Weights of the served model.
    """
    options = spec.engine.options
    wanted = options.speculative if options is not None else None
    if options is None or wanted is None or wanted.method == "ngram":
        return Draft()
    if wanted.method == "mtp":
        # Its layers lie in the files of the model itself.
        return Draft() if main.is_measured else _unknown("the layers that guess are no part of the model's shape")
    if wanted.uri is None or (facts := catalogue_facts(wanted.uri)) is None:
        return _unknown(f"nothing is known of {(wanted.uri or '')[:120]}")
    weights = weight_bytes(facts)
    if isinstance(weights, UnknownWeights):
        return _unknown(weights.reason)
    kv_dtype = engine.kv_dtype(facts, options.kv_cache_dtype)
    if kv_dtype is None:
        return _unknown(f"the size of engine.options.kvCacheDType '{options.kv_cache_dtype}' is not known")
    billions = parameters(facts) / 10**9
    message = f"the draft model ({billions:.3g} B parameters, {gib(weights.total)}) is in the sum of the memory"
    share = Share(facts=facts, weights=weights, kv_dtype=kv_dtype)
    return Draft(share=share, reason=Reason(code="DraftModel", message=message))


def _unknown(why: str) -> Draft:
    message = (
        f"weights and cache of engine.options.speculative are not in the sum, because {why.removesuffix('.')}; leave room "
        "for them with a smaller model.maxContextLength or workload.concurrency"
    )
    return Draft(reason=Reason(code="DraftMemoryUnknown", message=message))
