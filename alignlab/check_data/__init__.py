"""``alignlab check-data``: a set of rows as training would read it, before anything is trained.

``alignlab.data`` reads, recognises, refuses, compares and tokenises the rows, as in training; here
the results are counted and shown.
"""
