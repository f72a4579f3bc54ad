"""Questions about runs that stand: which run made a number, what differs, what follows from one."""
