"""Win rates: policies against references or each other, by a reward, a served model or a person."""
