"""Speed and memory, measured side by side. Run from the checkout: python -m benchmarks.kernel_predictor."""
