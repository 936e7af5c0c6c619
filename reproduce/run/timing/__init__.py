"""Seconds per epoch of a row, and how many times as long one network takes as another."""
