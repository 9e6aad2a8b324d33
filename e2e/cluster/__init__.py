"""A real Kubernetes for tests and the demo.

A bare Debian machine has no cluster and can pull no images, so everything is
made from what the package registries do have: the Kubernetes programs are
compiled from the Go module proxy, root file systems come from Debian, and one
node is put together in a network namespace and a cgroup of its own. Several
named clusters run side by side, and each can be removed without a trace.

`cluster` is the cluster, `choose` prefers what the user already has, `images`
and `binaries` make what is put into it, `cache` keeps what was made.
"""
