"""Checks of a stage before it trains: the fast ones at the start of every run, all by a command."""
