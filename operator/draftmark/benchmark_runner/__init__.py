"""Measures what a Benchmark asks for: `python -m draftmark.benchmark_runner`.

It runs in a Job in the Benchmark's namespace. The order is a mounted file in which everything is resolved; the result goes
to one ConfigMap there (and to a claim, where the order says so), in one request, so that there is a whole one or none.

guidellm sends the requests (`load`), from its own worker processes. Everything else here is beside it: prompts of exact
lengths, the engine's metrics, what the client had of the machine, progress. What may be concluded is decided by
`draftmark.measure`, which is pure.

Why guidellm's scheduler and not its whole: `benchmark_generative_text` reports percentiles of what it counts as success,
and that is a stream that was cut as well as one of another model (0.8.1). Its scheduler and its HTTP backend give every
request with its times, take another reader of answers, and are imported without torch, transformers and datasets, which
its data loader and its report need. A block of load costs 1 s beside the load then, and 3 to 10 s with the whole.
"""
