"""``alignlab check-data``: a set of rows as training would read it, before anything is trained.

Reading, recognising, refusing, comparing and tokenising are the data room's own; here they are
counted and shown.
"""
