"""The record of a run: its tables, samples and pools."""
