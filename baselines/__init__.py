"""The networks that the paper compares with. Each file is readable alone, beside its paper."""
