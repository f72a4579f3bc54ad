"""All pairs of an enumerable world with their chances, and a minimiser that goes to the bottom."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from alignlab.worlds.enumerable import EnumerableWorld

Pairs = tuple[Tensor, Tensor, Tensor]  # chosen [B], rejected [B], weight [P, B]


def population(world: EnumerableWorld, flipped: float = 0.0) -> Pairs:
    """Every ordered pair of different completions, weighted by how often it is drawn and judged so.

    Both are drawn from the reference; the first is preferred with probability sigmoid(r1 - r2), and
    a share ``flipped`` of all labels is then turned round.
    """
    each = torch.arange(world.rewards.shape[1])
    pairs = torch.cartesian_prod(each, each)
    chosen, rejected = pairs[pairs[:, 0] != pairs[:, 1]].T
    drawn = (world.ref_logps[:, chosen] + world.ref_logps[:, rejected]).exp()
    said = torch.sigmoid(world.rewards[:, chosen] - world.rewards[:, rejected])
    weight = drawn * ((1 - flipped) * said + flipped * (1 - said))
    return chosen, rejected, weight / weight.sum()


def minimise(
    parameters: Iterable[nn.Parameter], loss_of: Callable[[], Tensor], steps: int = 300
) -> None:
    """Move ``parameters`` to a minimum of ``loss_of()``, to float64's precision if steps allow."""
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=steps,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss.item()

    optimizer.step(closure)
