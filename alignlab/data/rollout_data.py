"""The data module of on-policy objectives: prompts in, phases of rollouts out."""

from typing import Protocol

from alignlab.data.loader import rank_and_world_size, used_of
from alignlab.data.modules import DemonstrationData, PromptData, TextData
from alignlab.data.rollouts import Pretraining, RolloutBatch, RolloutLoader
from alignlab.data.rows import Refuse
from alignlab.data.tree import PromptTree
from alignlab.errors import ConfigError
from alignlab.functional.noise import permutation


class Collector(Protocol):
    """The interface of an objective that makes rollouts: a phase of them from prompts."""

    def collect(self, prompts: list[PromptTree], samples: int, rollout: int) -> RolloutBatch:
        """Sample, score, and turn rewards into advantages."""
        ...


class RolloutData(PromptData):
    """Splits prompts into rollout phases, and each phase into minibatches.

    Every prompt is used once before any is used again, in an order that is a function of the seed
    and the number of passes over the prompts.

    Args:
        source: See ``TreeData``; rows need a ``prompt``.
        rollout_size: Prompts of a phase.
        batch_size: Prompts of an optimizer step (a minibatch); divides ``rollout_size``.
        samples_per_prompt: Completions of each prompt.
        inner_epochs: Passes over a phase's samples. With more passes the policy moves further from
            the one that sampled, and importance ratios become less reliable.
        micro_batch_size: Prompts per forward; by default those of a whole minibatch.
        max_length: Maximum tokens of a prompt.
        split: See ``TreeData``.
        columns: See ``TreeData``.
        seed: Seed of all shuffles.
        limit: Number of usable prompts to keep, the first ones.
        refuse: See ``TreeData``.
        pretraining: Texts to mix into every optimizer step (PPO's ``ptx_coef``); its ``batch_size``
            is the number of texts of a step, which is cut into micro-batches as rollouts are.
            InstructGPT uses 8 texts for each completion.

    Raises:
        ConfigError: Sizes that do not divide, or fewer prompts than a phase needs.
    """

    def __init__(
        self,
        source: str,
        rollout_size: int,
        batch_size: int,
        samples_per_prompt: int = 1,
        inner_epochs: int = 4,
        micro_batch_size: int | None = None,
        max_length: int = 512,
        split: str | None = None,
        columns: dict[str, str] | None = None,
        seed: int = 0,
        limit: int | None = None,
        refuse: Refuse = "drop",
        pretraining: TextData | DemonstrationData | None = None,
    ) -> None:
        super().__init__(
            source,
            batch_size,
            micro_batch_size,
            max_length,
            split=split,
            columns=columns,
            seed=seed,
            limit=limit,
            refuse=refuse,
        )
        if rollout_size % batch_size or samples_per_prompt < 1 or inner_epochs < 1:
            raise ConfigError(
                f"RolloutData needs rollout_size ({rollout_size}) to be a multiple of batch_size "
                f"({batch_size}), and samples_per_prompt and inner_epochs of at least 1 "
                f"(got {samples_per_prompt}, {inner_epochs}). Set them in data.init_args."
            )
        self.rollout_size, self.samples_per_prompt = rollout_size, samples_per_prompt
        self.inner_epochs, self.pretraining = inner_epochs, pretraining

    def setup(self, stage: str | None = None) -> None:
        """Read and tokenise prompts, and the texts of a pretraining mix."""
        super().setup(stage)
        if self.pretraining is not None:
            self.pretraining.connect(self._tokenizer())
            self.pretraining.setup()
            self.reports["pretraining"] = self.pretraining.reports["train"]

    def train_dataloader(self) -> RolloutLoader:  # type: ignore[override]
        """A loader whose epoch is one rollout phase of the module in training."""
        if len(self.train_trees) < self.rollout_size:
            raise ConfigError(
                f"{self.source} has {len(self.train_trees)} usable prompts, fewer than the "
                f"{self.rollout_size} of a rollout. Lower data.init_args.rollout_size."
            )
        mix = self.pretraining
        loader = RolloutLoader(
            self._collect,
            prompts=self.rollout_size,
            minibatches=self.rollout_size // self.batch_size,
            micro_batches=self.micro_batches(rank_and_world_size()[1]),
            inner_epochs=self.inner_epochs,
            seed=self.seed,
            pretraining=Pretraining(mix.train_trees, mix.batch_size, mix.seed) if mix else None,
        )
        limit = self.trainer.limit_train_batches if self.trainer is not None else 1.0
        if used_of(len(loader), limit) % loader.micro_batches:
            raise ConfigError(
                f"trainer.limit_train_batches {limit} ends a phase of {len(loader)} micro-batches "
                f"inside an optimizer step. Give a multiple of {loader.micro_batches}."
            )
        return loader

    def prompts_of(self, rollout: int) -> list[PromptTree]:
        """The prompts of phase ``rollout``; all distinct."""
        phases = len(self.train_trees) // self.rollout_size  # of one pass over the prompts
        epoch, phase = divmod(rollout, phases)
        order = permutation(self.seed, epoch, len(self.train_trees)).tolist()
        chosen = order[phase * self.rollout_size : (phase + 1) * self.rollout_size]
        return [self.train_trees[i] for i in chosen]

    def _collect(self, rollout: int) -> RolloutBatch:
        assert self.trainer is not None
        module: Collector = self.trainer.lightning_module  # type: ignore[assignment]
        return module.collect(self.prompts_of(rollout), self.samples_per_prompt, rollout)
