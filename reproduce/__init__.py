"""Reproduction suite for EffConv: from a row of a paper's table to a measured cell."""

__version__ = "0.1.0"
