"""Memory of models that are trained and of frozen ones, and the devices that hold them: arithmetic.

With AdamW in mixed precision, a trained parameter takes 2 bytes of bfloat16 weight, 2 of gradient
(4 in float32), 4 of float32 weight and 8 of the optimizer's two moments. A frozen one takes 2
(Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

GB = 1e9  # as vendors count


@dataclass(frozen=True, slots=True)
class Device:
    """A kind of GPU, by its vendor's data sheet.

    Args:
        name: As users type it.
        memory: Bytes.
        bandwidth: Of the memory, bytes a second.
        half: Dense bfloat16 matmuls, FLOP/s.
        single: Float32 matmuls without TF32, FLOP/s.
    """

    name: str
    memory: float
    bandwidth: float
    half: float
    single: float


DEVICES = {
    each.name: each
    for each in (
        Device("h200", 141 * GB, 4.8e12, 989e12, 67e12),
        Device("h100", 80 * GB, 3.35e12, 989e12, 67e12),
        Device("a100-80gb", 80 * GB, 2.04e12, 312e12, 19.5e12),
        Device("a100-40gb", 40 * GB, 1.56e12, 312e12, 19.5e12),
        Device("l40s", 48 * GB, 0.864e12, 362e12, 91.6e12),
        Device("rtx-4090", 24 * GB, 1.01e12, 165e12, 82.6e12),
    )
}


def bytes_of_copies(
    trained: Iterable[float],
    frozen: Iterable[float] = (),
    *,
    weight: float = 2,
    gradient: float = 2,
    master: float = 4,
    moments: float = 8,
) -> float:
    """Bytes of weights, gradients and optimizer of several models in memory together.

    Args:
        trained: Parameters of each model that is trained.
        frozen: Parameters of each model that is only read.
        weight: Bytes of a parameter as the forward pass reads it.
        gradient: Bytes of its gradient.
        master: Bytes of the optimizer's finer copy of it; 0 where it has none.
        moments: Bytes that the optimizer keeps of it.
    """
    return (weight + gradient + master + moments) * sum(trained) + weight * sum(frozen)


def devices_for(size: float, memory: float) -> int:
    """The fewest devices of ``memory`` bytes that hold ``size`` bytes in equal shares."""
    return math.ceil(size / memory)
