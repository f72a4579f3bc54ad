"""The record of a run: its tables, samples and pools, written by stages, read by everybody."""
