"""The cases, most wanted first. Names begin with the objective."""

from dataclasses import replace

from sides.work import Case

LONG, SHORT = (300, 40), (8, 48)


def both(prefix: str, objective: str, **settings: object) -> list[Case]:
    """Long and short prompts, float32 and bfloat16."""
    return [
        Case(f"{prefix}-{p}+{c}-{precision}", objective, p, c, precision=precision, **settings)  # type: ignore[arg-type]
        for p, c in (LONG, SHORT)
        for precision in ("fp32", "bf16")
    ]


CASES = [
    *both("dpo-cold", "dpo"),
    *both("rollout", "rollout", k=4, batch=64, steps=1, warmup=1),
    *both("simpo", "simpo"),
    *both("orpo", "orpo"),
    *both("rm", "rm"),
    *both("sft", "sft", k=1),
    Case("sft-chat-fp32", "sft", 0, 96, k=1, batch=4, ragged=True),
    Case("sft-chat-bf16", "sft", 0, 96, k=1, batch=4, ragged=True, precision="bf16"),
    *both("grpo", "grpo", k=4, steps=3, warmup=1),
    *both("rloo", "rloo", k=4, steps=3, warmup=1),
    *both("kto", "kto", k=1, lr=1e-5),
    *both("dpo-warm", "dpo", cached=True),
]
# The rollouts of the goals have completions of at most 48 tokens whatever the prompt.
CASES = [
    replace(case, completion=48, name=case.name.replace("+40", "+48")) if case.samples else case
    for case in CASES
]

# One size at a time differs from 128 + 40 tokens, pairs and batches of 8. With few steps all of it
# takes half an hour on one core.
_BASE = Case("sweep", "dpo", 128, 40, steps=2, warmup=1)
SWEEP = [
    *(replace(_BASE, name=f"sweep-prompt-{n}", prompt=n) for n in (32, 128, 512)),
    *(replace(_BASE, name=f"sweep-completion-{n}", completion=n) for n in (10, 160)),
    *(replace(_BASE, name=f"sweep-batch-{n}", batch=n, steps=s) for n, s in ((2, 4), (32, 1))),
    *(replace(_BASE, name=f"sweep-vocabulary-{n}", vocabulary=n) for n in (2048, 32768)),
    *(replace(_BASE, name=f"sweep-width-{n}", hidden=n) for n in (64, 512)),
    *(
        replace(_BASE, name=f"sweep-k-{n}", objective="grpo", k=n, completion=48, batch=4)
        for n in (2, 8)
    ),
]
QUICK = ("dpo-cold-300+40-fp32", "dpo-cold-8+48-fp32", "rollout-8+48-fp32", "sft-300+40-fp32")
