"""Commands about existing runs: show what made a number, compare two runs, fork or annotate one."""
