"""The cases, in the order of the table. Names begin with the objective."""

from sides.work import Case

SHAPES = ((300, 40), (8, 48))

CASES = [
    *(
        Case(f"dpo-cold-{p}+{c}-{precision}", "dpo", p, c, precision=precision)
        for p, c in SHAPES
        for precision in ("fp32", "bf16")
    ),
]
