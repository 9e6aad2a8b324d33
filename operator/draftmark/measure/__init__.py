"""What is measured, and what may be concluded from it. Pure: the same code runs in the Benchmark's Job and in tests."""
