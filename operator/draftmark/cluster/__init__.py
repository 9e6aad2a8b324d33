"""Kubernetes I/O: what the operator reads from the API server and the few things that it writes.

`kinds` says which kinds, `errors` what can go wrong, `client` speaks the protocol, `informer` keeps the cache, `apply`
writes children, `lease` elects the one who may write. Decisions are made elsewhere, from plain data.
"""
