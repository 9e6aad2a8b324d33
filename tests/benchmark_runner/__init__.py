"""The program of the Benchmark's Job. What needs guidellm runs as a process of its own, with the packages of its image."""
