"""Reads the facts of a model where its files are: `python -m draftmark.model_facts_reader`.

It runs in a Job in the service's namespace, for what it reads may be on a claim there or behind a token of a Secret
there, and the operator reads neither. It answers in the pod's termination message (`facts.model_answer`): the facts, or
one problem in words. Weights are never read, only what stands before them.

Everything here comes from strangers. Sizes, times and redirects are bounded before anything is parsed, nothing that was
read is run, and nothing is written but the answer.

Why httpx and not huggingface_hub: the whole need is four GET requests. The library (2.4.0) would add seven packages of
19 MB to the image, and decides by itself which redirects it follows and how much of an answer it takes, and these are the
two things that must be bounded here. httpx is there already, follows no redirect by itself, and gives the body in pieces.
"""
