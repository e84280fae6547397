"""What the program costs, measured: one module per question, and ``python -m benchmarks`` for all of them."""
