"""Tiny worlds whose optimum is a sum one can write out, for the tests beside this file."""

import numpy as np

from alignlab.results.pool import Pool
from alignlab.results.prompt_tables import PromptScores, PromptTable
from alignlab.results.statistics import Floats


class World:
    """P prompts with M completions: probabilities ``ref`` and ``reward``, both ``[P, M]``."""

    def __init__(self, prompts: int, completions: int, seed: int, *, levels: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.ref: Floats = rng.dirichlet(np.full(completions, 0.7), size=prompts) + 1e-3
        self.ref /= self.ref.sum(1, keepdims=True)
        self.reward: Floats = rng.normal(size=(prompts, completions)) + rng.normal(
            size=(prompts, 1)
        )
        if levels:
            self.reward = rng.integers(0, levels, size=(prompts, completions)).astype(float)
        self.ids = tuple(f"prompt-{i}" for i in range(prompts))

    def tilted(self, beta: float, reward: Floats | None = None) -> Floats:
        """``[P, M]`` proportional to ref * exp(reward / beta), one cell at a time."""
        r = self.reward if reward is None else reward
        out = np.zeros_like(self.ref)
        for p in range(len(out)):
            top = r[p].max()
            cells = [q * np.exp((x - top) / beta) for q, x in zip(self.ref[p], r[p], strict=True)]
            out[p] = np.array(cells) / sum(cells)
        return out

    def mean_reward(self, policy: Floats) -> Floats:
        return np.array([sum(p * r) for p, r in zip(policy, self.reward, strict=True)])

    def kl(self, policy: Floats) -> Floats:
        """``[P]`` KL(policy || ref) in nats."""
        return np.array(
            [
                sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
                for p, q in zip(policy, self.ref, strict=True)
            ]
        )

    def optimum_at(self, budget: float) -> tuple[float, Floats]:
        """Mean reward of the optimum with mean KL ``budget``, and the optimum."""
        lo, hi = 1e-3, 1e3
        for _ in range(80):
            beta = (lo * hi) ** 0.5
            if self.kl(self.tilted(beta)).mean() > budget:
                lo = beta
            else:
                hi = beta
        policy = self.tilted(beta)
        return float(self.mean_reward(policy).mean()), policy

    def draw(self, policy: Floats, n: int, rng: np.random.Generator) -> np.ndarray:
        """``[P, n]`` sampled completions."""
        return np.stack([rng.choice(len(p), size=n, p=p) for p in policy])

    def pool(self, n: int, seed: int, others: list[Floats] | None = None, m: int = 0) -> Pool:
        """``n`` samples of the reference and ``m`` of each other policy; proxy = -reward."""
        rng = np.random.default_rng(seed)
        policies = [self.ref, *(others or [])]
        counts = [n] + [m] * (len(policies) - 1)
        ys = np.hstack([self.draw(p, k, rng) for p, k in zip(policies, counts, strict=True)])
        mixture = sum(p * (k / sum(counts)) for p, k in zip(policies, counts, strict=True))
        rewards = np.take_along_axis(self.reward, ys, 1)
        names = ["reference", *(f"policy{j}" for j in range(1, len(policies)))]
        return Pool(
            prompt_ids=self.ids,
            rewards=rewards,
            proxy=-rewards,
            proposals=tuple(names),
            proposal=np.repeat(np.arange(len(policies)), counts),
            log_ref=np.log(np.take_along_axis(self.ref, ys, 1)),
            log_mixture=np.log(np.take_along_axis(np.asarray(mixture), ys, 1)),
        )

    def exact_pool(self) -> Pool:
        """Every completion once, with weights that make the pool the reference itself."""
        n = self.ref.shape[1]
        return Pool(
            prompt_ids=self.ids,
            rewards=self.reward,
            proxy=None,
            proposals=("reference", "uniform"),
            proposal=np.ones(n, dtype=np.int64),
            log_ref=np.log(self.ref),
            log_mixture=np.full(self.ref.shape, -np.log(n)),
        )

    def table(
        self,
        policy: Floats,
        *,
        objective: str,
        run_id: str,
        seed: int,
        step: int,
        samples: int = 0,
        rng: np.random.Generator | None = None,
    ) -> PromptTable:
        """Per-prompt results of ``policy``: exact, or with rewards from ``samples`` draws."""
        reward = self.mean_reward(policy)
        if samples and rng is not None:
            ys = self.draw(policy, samples, rng)
            reward = np.take_along_axis(self.reward, ys, 1).mean(1)
        return PromptTable(
            objective=objective,
            run_id=run_id,
            seed=seed,
            step=step,
            scores=PromptScores(
                prompt_ids=self.ids,
                kl=self.kl(policy),
                kl_k1=self.kl(policy),
                reward=reward,
                proxy_reward=None,
                length=np.ones(len(reward)),
                n_samples=np.full(len(reward), max(samples, 1)),
            ),
        )
