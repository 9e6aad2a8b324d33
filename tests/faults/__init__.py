"""The whole operator under faults of the API server, its watches, its own process and its Lease (README.md)."""
