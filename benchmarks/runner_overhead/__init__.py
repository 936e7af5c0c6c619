"""What `--backend local` costs; run with `python -m benchmarks.runner_overhead`."""
