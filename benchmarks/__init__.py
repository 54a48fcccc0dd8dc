"""Speed and accuracy against references; `python -m benchmarks` runs them, RESULTS.md keeps what they gave."""
