"""Draftmark: a Kubernetes operator for LLM serving."""
