"""Points of the frontier, measured while a run trains."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from alignlab.bounds import LARGEST_SEED
from alignlab.callbacks.loggers import log_samples
from alignlab.callbacks.resume import Resume, run_folder
from alignlab.clock import CLOCK
from alignlab.data.trees import PromptTree
from alignlab.distributed import from_all, own_share
from alignlab.errors import ConfigError
from alignlab.evaluation.points import PointEstimate, evaluate_policy
from alignlab.evaluation.prompts import load_pairs, load_prompts
from alignlab.evaluation.scoring import check_vocabularies
from alignlab.models.loading import freeze
from alignlab.models.policy import Policy
from alignlab.models.sharding import gathered
from alignlab.results.prompt_tables import read_scores, write_scores
from alignlab.results.run_folder import Evaluation, evaluations_in
from alignlab.rewards import Reward

TEXTS = 64  # completions kept to read, from as many different prompts as possible


class FrontierProbe(Callback):
    """Evaluates the policy every ``every_n_steps`` optimizer steps and at the end of training.

    With ``also_after`` it evaluates after these early steps, too: a frontier's curve is a straight
    line from the reference to its first checkpoint.

    Each evaluation leaves the files of ``results.run_folder.Evaluation`` in the run's folder:
    per-prompt scores, samples to read, and the training time. Its numbers are a function of the
    weights and of this callback's arguments alone, so a run that was killed and continued ends
    with the same files as one that was not; a missing file is made when the run continues.

    Before the first step, everything that an evaluation needs is tested on the longest prompt:
    files, vocabularies, one completion, its rewards and its KL.

    Args:
        prompts: File of evaluation prompts, or hub id of a data set.
        reward: The gold reward.
        samples: Completions per prompt.
        max_new_tokens: Tokens of a completion that does not end by itself.
        every_n_steps: Optimizer steps between two evaluations.
        reference: Folder or hub id of the policy that KL is measured to; the trained policy as it
            is before the first step when left out.
        proxy: A learned reward, to report beside the gold one.
        limit: How many prompts to use, from the start.
        seed: Seed of the sampling noise; use the same for all runs that you want to compare.
        batch_size: Completions per batch.
        max_length: Tokens of a prompt; a longer one keeps its end. The model's context has to hold
            it and ``max_new_tokens``.
        pairs: File of held-out preference pairs of these prompts, or hub id of a data set. Every
            evaluation then has the mean log-probs of their preferred and of their other completions
            (``chosen_logp`` and ``rejected_logp``).
        also_after: Further optimizer steps, such as ``[2, 4, 8]``, to evaluate after.

    Raises:
        ConfigError: A count that is not positive, a further step that is due anyway or given
            twice, or an objective that trains no policy.
    """

    def __init__(
        self,
        prompts: str,
        reward: Reward,
        samples: int,
        max_new_tokens: int,
        every_n_steps: int,
        reference: str | None = None,
        proxy: Reward | None = None,
        limit: int | None = None,
        seed: int = 0,
        batch_size: int = 512,
        max_length: int | None = None,
        pairs: str | None = None,
        also_after: Sequence[int] = (),
    ) -> None:
        if min(samples, max_new_tokens, every_n_steps, batch_size) < 1:
            raise ConfigError(
                "FrontierProbe needs samples, max_new_tokens, every_n_steps and batch_size >= 1; "
                f"got {samples}, {max_new_tokens}, {every_n_steps}, {batch_size}."
            )
        if (limit is not None and limit < 1) or not 0 <= seed <= LARGEST_SEED:
            raise ConfigError(
                f"FrontierProbe needs limit >= 1 and a seed from 0 to {LARGEST_SEED}; got {limit} "
                f"and {seed}."
            )
        self.also_after = frozenset(also_after)
        wrong = [step for step in also_after if step < 1 or step % every_n_steps == 0]
        if wrong or len(self.also_after) < len(also_after):
            raise ConfigError(
                "FrontierProbe needs different steps >= 1 in also_after, none of them a multiple "
                f"of every_n_steps ({every_n_steps}); got {list(also_after)}."
            )
        self.prompts_source, self.reference_source = prompts, reference
        self.pairs_source = pairs
        self.reward, self.proxy = reward, proxy
        self.samples, self.max_new_tokens = samples, max_new_tokens
        self.every_n_steps, self.limit = every_n_steps, limit
        self.seed, self.batch_size, self.max_length = seed, batch_size, max_length
        self._step_before = 0
        self._logged = -1  # step of the evaluation that was logged last
        self.reference: Policy | None = None
        self.prompts: tuple[PromptTree, ...] = ()
        self.pairs: dict[str, list[PromptTree]] = {}  # by the prompt's id
        self.tried: PointEstimate | None = None  # of one completion, before the first step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the prompts and load the reference, before any training."""
        if stage == "fit":
            self.prepare(pl_module)

    def prepare(self, pl_module: LightningModule) -> None:
        """Read the prompts and load the reference, once; ``pl_module`` is as it starts.

        Raises:
            ConfigError: It trains no policy, or one with other tokens than the reference's.
            DataError: Prompts that cannot be read.
        """
        policy = getattr(pl_module, "policy", None)
        if not isinstance(policy, Policy):
            raise ConfigError(
                f"FrontierProbe evaluates a policy; {type(pl_module).__name__} trains none. "
                "Take the probe out."
            )
        if self.reference is not None:
            return
        with torch.random.fork_rng():
            source = self.reference_source
            reference = copy.deepcopy(policy) if source is None else Policy.load(source)
        check_vocabularies(policy, reference)
        self.prompts = load_prompts(
            self.prompts_source,
            reference.tokenizer,
            limit=self.limit,
            max_length=self.max_length,
        )
        if self.pairs_source is not None:
            pairs = load_pairs(
                self.pairs_source,
                self.prompts,
                reference.tokenizer,
                max_length=self.max_length,
                max_new_tokens=self.max_new_tokens,
            )
            self.pairs = dict(zip((tree.id for tree in self.prompts), pairs, strict=True))
        freeze(reference)
        self.reference = reference

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Try an evaluation of one completion: what fails after minutes fails now."""
        longest = max(self.prompts, key=lambda tree: len(tree.prompt))
        with gathered(trained_policy(pl_module), exact=True), torch.random.fork_rng():
            if trainer.is_global_zero:
                self.tried = self._estimate(pl_module, (longest,), samples=1)
        trainer.strategy.barrier("probe")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Delete files of an older run, or make an evaluation that a continued run still lacks."""
        step = self._step_before = trainer.global_step
        if step == 0:
            if trainer.is_global_zero:
                for evaluation in evaluations_in(run_folder(trainer)):
                    evaluation.remove()
        elif self._is_due(step):
            self._measure(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Evaluate after an optimizer step that is due (not after each of its micro-batches)."""
        step, before = trainer.global_step, self._step_before
        self._step_before = step
        if step != before and self._is_due(step):
            self._measure(trainer, pl_module)

    def _is_due(self, step: int) -> bool:
        return step % self.every_n_steps == 0 or step in self.also_after

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the trained policy."""
        self._measure(trainer, pl_module)

    def state_dict(self) -> dict[str, int]:
        """The step of the last logged evaluation, because files may be ahead of the log."""
        return {"logged": self._logged}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from there."""
        self._logged = state_dict["logged"]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate a run that was continued after its last step, where no training starts."""
        self._measure(trainer, pl_module)

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        evaluation = Evaluation(run_folder(trainer), step)
        new = not evaluation.is_whole
        new = trainer.strategy.broadcast(new)
        with CLOCK.part("probe"):
            estimate = self._estimate_of_all(pl_module) if new else None
        if trainer.is_global_zero and estimate is not None:
            stride = max(1, len(estimate.samples) // TEXTS)
            evaluation.write_texts(estimate.samples[::stride][:TEXTS])
            write_scores(evaluation.scores, estimate.scores)
            evaluation.seal(_seconds(trainer))
        if trainer.is_global_zero and (new or self._logged != step):
            means = read_scores(evaluation.scores).means()
            for logger in trainer.loggers:
                logger.log_metrics({f"probe/{k}": v for k, v in means.items()}, step=step)
                log_samples(logger, evaluation.read_texts(), step)
        self._logged = step
        trainer.strategy.barrier("probe")

    def _estimate_of_all(self, pl_module: LightningModule) -> PointEstimate:
        """The evaluation on all prompts, of which each rank takes a share."""
        mine = own_share(self.prompts)
        with gathered(trained_policy(pl_module), exact=True), torch.random.fork_rng():
            own = self._estimate(pl_module, mine, samples=self.samples) if mine else None
        return PointEstimate.joined([part for part in from_all(own) if part is not None])

    def _estimate(
        self, pl_module: LightningModule, prompts: Sequence[PromptTree], *, samples: int
    ) -> PointEstimate:
        policy, reference = trained_policy(pl_module), self.reference
        assert reference is not None
        return evaluate_policy(
            policy,
            reference.to(policy.device),
            prompts,
            self.reward,
            samples=samples,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            stop_ids=policy.stop_ids,
            proxy=self.proxy,
            pairs=[self.pairs[tree.id] for tree in prompts] if self.pairs else (),
            batch_size=self.batch_size,
        )


def trained_policy(pl_module: LightningModule) -> Policy:
    """The policy that ``pl_module`` trains."""
    policy = pl_module.policy
    assert isinstance(policy, Policy)
    return policy


def means_at(trainer: Trainer, step: int) -> dict[str, float] | None:
    """Means and training time of the evaluation after ``step``, if there was one."""
    evaluation = Evaluation(run_folder(trainer), step)
    if not evaluation.is_whole:
        return None
    return read_scores(evaluation.scores).means() | {"seconds": evaluation.seconds}


def _seconds(trainer: Trainer) -> float:
    """Training time so far, over all continuations where they are counted."""
    clocks = [c.seconds for c in trainer.checkpoint_callbacks if isinstance(c, Resume)]
    return round(clocks[0], 2) if clocks else 0.0
