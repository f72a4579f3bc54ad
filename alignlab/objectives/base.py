"""What objectives share: optimizer, checkpoint, and the steps on prompt trees and on pairs."""

import sys
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from alignlab.data.rows import PreferencePair, Row
from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError, DataError
from alignlab.models import Policy, Reference, ScoreModel, Scores, UncachedReference
from alignlab.models.backbone import TreeBackbone
from alignlab.models.sharding import local, make_whole, shard
from alignlab.objectives.metrics import Means, Metric, add_batch, over_ranks, weighted_means
from alignlab.objectives.schedule import Schedule

FourLogps = tuple[Tensor, Tensor, Tensor, Tensor]
LossAndMetrics = tuple[Tensor, Means]


class Objective(L.LightningModule):
    """A LightningModule that trains on prompt trees.

    Args:
        optimizer: Builds the optimizer from parameters (``class_path`` and ``init_args``).
        schedule: Factor on the learning rate per optimizer step; constant when left out.

    Raises:
        ConfigError: The optimizer refuses its settings.
    """

    policy: Policy
    model: ScoreModel
    added_tokens = 0  # behind a row of the data: completions that are sampled
    nats_per_token = False  # whether the loss is, so that exp(loss) is a perplexity
    checks_losses = True  # not where the callback NonFinite judges whole steps

    def __init__(self, optimizer: OptimizerCallable, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.make_optimizer = optimizer
        try:  # before there are weights, data and logs
            optimizer([nn.Parameter(torch.zeros(1))])
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(f"model.init_args.optimizer: {error}.") from error
        self.schedule = schedule or Schedule()
        self.strict_loading = False  # checkpoints hold only what trains; see on_load_checkpoint
        self._to_stop = False
        self._step: dict[str, Metric] = {}  # what this rank's micro-batches add to its metrics

    @property
    def trained(self) -> Policy | ScoreModel:
        """The model that is trained and saved; an objective holds it as ``policy`` or ``model``."""
        return self.policy if hasattr(self, "policy") else self.model

    @property
    def tokenizer(self) -> Any:
        """The trained model's; the data module takes it from here."""
        return self.trained.tokenizer

    def save(self, path: Path) -> None:
        """Write the trained model as a Hugging Face folder."""
        self.trained.save(path)

    def parameter_groups(self) -> Iterable[Any]:
        """The optimizer's parameter groups; objectives with several models override this.

        A group whose training begins later than the run's has its ``first_step``.
        """
        return [p for p in self.parameters() if p.requires_grad]

    def configure_model(self) -> None:
        """Shard all models over the ranks, under a strategy that does."""
        if self.device_mesh is not None:
            offload = getattr(self.trainer.strategy, "cpu_offload", False)
            compute = torch.bfloat16 if self.trainer.precision == "bf16-mixed" else None
            shard(self, self.device_mesh, cpu_offload=offload, compute=compute)

    def on_fit_end(self) -> None:
        """Put sharded weights together, so that the first rank can save them."""
        make_whole(self.trained, keep=self.trainer.is_global_zero)

    def configure_optimizers(self) -> Any:
        """One optimizer, its rate set for each optimizer step (never per micro-batch)."""
        optimizer = self.make_optimizer(self.parameter_groups())
        for group in optimizer.param_groups:  # one kernel for all weights, where PyTorch has one
            if group.get("fused", False) is None and group.get("foreach") is None:
                group["fused"] = all(weight.is_floating_point() for weight in group["params"])
        first = [group.pop("first_step", 0) for group in optimizer.param_groups]
        total = self.schedule.steps(self.trainer)
        scheduler = LambdaLR(optimizer, [self.schedule.counted_from(n, total) for n in first])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def own_precision(self) -> AbstractContextManager[None]:
        """Enter the training step's precision, for values that a step is compared with."""
        if self._trainer is None:
            return nullcontext()
        return self.trainer.precision_plugin.train_step_context()

    def normalised(self, loss_sum: Tensor, total: int) -> Tensor:
        """This micro-batch's share of the step's loss, ``loss_sum / total``.

        ``total`` counts the whole optimizer step (``StepTotals``). Lightning divides by the number
        of accumulated micro-batches and DDP averages over ranks, so both are multiplied back.
        """
        parts = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return loss_sum * (parts / max(1, total))

    def finite(self, losses: Tensor, trees: PromptTrees) -> Tensor:
        """``losses``, one for each prompt, each completion or in sum.

        Raises:
            FloatingPointError: One is NaN or infinite, and no callback judges the whole step.
        """
        return finite(losses, trees) if self.checks_losses else losses

    def log_step(self, means: Means, weight: int) -> None:
        """Add this micro-batch's means over ``weight`` rows to the step's ``train/{name}``."""
        self._step = add_batch(self._step, weighted_means(means, weight))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the metrics of the whole step: all its micro-batches, on all ranks."""
        whole = over_ranks(self._step, self.trainer.strategy, self.device)
        self._step = {}
        results: Any = self.trainer._results
        for name, value in whole.items():
            key = f"on_before_optimizer_step.train/{name}"
            if key in results:  # self.log checks all settings again, which takes a small model's
                results.update_metrics(key, value, 1)  # step a quarter longer
            else:
                self.log(f"train/{name}", value, batch_size=1)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Delay a stop (``max_time``, a callback) until the optimizer step is complete.

        What was accumulated of a step is in no checkpoint, so a continued run could not finish it.
        """
        batches, parts = batch_idx + 1, self.trainer.accumulate_grad_batches
        whole = batches % parts == 0 or batches == self.trainer.num_training_batches
        self._to_stop = self._to_stop or self.trainer.should_stop
        self.trainer.should_stop = self._to_stop and whole

    def on_train_end(self) -> None:
        """Refuse to finish a run whose last update left weights that are not finite.

        Raises:
            FloatingPointError: A weight is not finite, although all losses were.
        """
        for name, weight in self.trained.named_parameters():
            if weight.requires_grad and not bool(torch.isfinite(local(weight.detach())).all()):
                raise FloatingPointError(
                    f"after step {self.trainer.global_step} {name} is not finite: the weights have "
                    "diverged. Lower the learning rate, or set trainer.gradient_clip_val."
                )

    def on_train_start(self) -> None:
        """Put the model in train mode, check that rows fit, and set the micro-batches of a step.

        Raises:
            ConfigError: The trainer accumulates another number of micro-batches.
            DataError: A row is longer than the model's context or has a token that it lacks.
        """
        for model in self.modules():
            if isinstance(model, TreeBackbone) and any(p.requires_grad for p in model.parameters()):
                model.train()
        data = getattr(self.trainer, "datamodule", None)
        for rows in ("train_trees", "validation_trees"):
            self.trained.check_rows(getattr(data, rows, ()), self.added_tokens)
        loader: Any = self.trainer.train_dataloader
        if hasattr(loader, "position"):
            self._count_from(loader.position)
        wanted = getattr(loader, "micro_batches", None)
        if wanted is not None and wanted != (given := self.trainer.accumulate_grad_batches):
            raise ConfigError(
                f"data makes {wanted} micro-batches per optimizer step but the trainer accumulates "
                f"{given}. Set trainer.accumulate_grad_batches to {wanted}."
            )

    def _count_from(self, position: int) -> None:
        """Count an epoch that is continued from the loader's ``position``.

        Lightning counts the micro-batches of before, which may have been others; and where a run
        ended with an epoch, it would take the next one's first micro-batch for a whole step.
        """
        loop = self.trainer.fit_loop
        progress = loop.epoch_loop.batch_progress
        current = progress.current
        if not position and loop.epoch_loop.restarted_on_last and not loop.restarted_mid_epoch:
            current.reset()
            progress.is_last_batch = False
        elif current.ready:
            more = int(position or self.trainer.num_training_batches) - current.ready
            for counts in (current, progress.total):
                for name in ("ready", "started", "processed", "completed"):
                    setattr(counts, name, getattr(counts, name) + more)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep frozen weights (reference, base under adapters) out of checkpoints."""
        kept = self.kept_names()
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in state if name in kept}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that lacks a trained weight (frozen ones are rebuilt)."""
        missing = self.kept_names() - set(checkpoint["state_dict"])
        if missing:
            raise ConfigError(
                f"the checkpoint lacks {len(missing)} trained weights, e.g. {min(missing)}. "
                "It belongs to another model; delete it or start in another folder."
            )

    def kept_names(self) -> set[str]:
        """Names of the tensors that a checkpoint holds: what is trained, and its buffers."""
        frozen = {name for name, p in self.named_parameters() if not p.requires_grad}
        with_scales = tuple(f"{name}." for name in frozen)  # of weights in 4 bits
        return {
            name
            for name in self.state_dict()
            if name not in frozen and not name.startswith(("reference.", "reward.", *with_scales))
        }


class TreeObjective(Objective):
    """The step of objectives whose loss is a sum over the trees of a batch.

    A subclass names what is counted (``unit``) and which ``rows`` it trains on, and computes the
    losses. Trees do not record their kind of row: the first of two completions may be the chosen
    one, the better rated or just the first, and a loss cannot notice the wrong kind.
    """

    rows: ClassVar[tuple[type[Row], ...]] = ()  # any, if none is named
    margins = False  # whether it reads those of pairs
    unit: ClassVar[Literal["prompts", "completions", "tokens"]]
    reference: Reference  # of objectives that compare the policy with its start
    _held_out: dict[str, Metric]

    def setup(self, stage: str) -> None:
        """Compute the log-probs of a reference that is to be cached, as a training step would."""
        reference = getattr(self, "reference", None)
        if isinstance(reference, UncachedReference):
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            device = self.trainer.strategy.root_device
            with self.own_precision():
                self.reference = reference.cached(
                    data.train_trees + data.validation_trees, data.train_dataloader, device
                )

    @property
    def knows_rows(self) -> bool:
        """Whether the data module names the kind of its rows; if not, every batch is checked."""
        data = None if self._trainer is None else getattr(self._trainer, "datamodule", None)
        return getattr(data, "kind", None) in self.rows

    @abstractmethod
    def losses(self, trees: PromptTrees) -> LossAndMetrics:
        """Losses to be summed (one per row, or their sum) and means to log."""

    def training_step(self, trees: PromptTrees, batch_idx: int) -> Tensor:
        """This micro-batch's sum over the whole step's count."""
        losses, means = self.losses(trees)
        count = getattr(trees.totals, self.unit)
        self.log_step(means, own_count(trees, self.unit))
        return self.normalised(self.finite(losses, trees).sum(), count)

    def on_fit_start(self) -> None:
        """Check that this objective trains on the data module's rows; note unused margins.

        Raises:
            ConfigError: The rows are of another kind.
        """
        data = getattr(self.trainer, "datamodule", None)
        kind = getattr(data, "kind", None)
        if self.rows and kind is not None and kind not in self.rows:
            wanted = " or ".join(row.__name__ for row in self.rows)
            raise ConfigError(
                f"{type(self).__name__} trains on rows of type {wanted}, "
                f"{type(data).__name__} has {kind.__name__}. Set data.class_path to match."
            )
        given = any(tree.labels is not None for tree in getattr(data, "train_trees", ())[:1])
        if kind is PreferencePair and given and not self.margins and self.trainer.is_global_zero:
            name = type(self).__name__
            print(f"{name} does not use the pairs' margins (column 'margin')", file=sys.stderr)

    def validation_metrics(self, trees: PromptTrees) -> dict[str, Metric]:
        """This batch's contribution to the validation metrics; by default the training means."""
        _, means = self.losses(trees)
        return weighted_means(means, own_count(trees, self.unit))

    def on_validation_epoch_start(self) -> None:
        """Reset all sums."""
        self._held_out = {}

    @torch.no_grad()
    def validation_step(self, trees: PromptTrees, batch_idx: int) -> None:
        """Add held-out trees to the sums."""
        self._held_out = add_batch(self._held_out, self.validation_metrics(trees))

    def on_validation_epoch_end(self) -> None:
        """Log ``val/{name}`` of all batches and ranks together."""
        whole = over_ranks(self._held_out, self.trainer.strategy, self.device)
        for name, value in whole.items():
            self.log(f"val/{name}", value, sync_dist=True)  # equal on all ranks


class PairLoss(NamedTuple):
    """Loss and implicit rewards of B pairs, each ``[B]``; the rewards carry no gradient."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


class PairObjective(TreeObjective):
    """Scores both completions of each pair in one forward and asks a subclass for their loss.

    Rows 2i of a batch are chosen, rows 2i + 1 rejected. A subclass that compares the policy with
    its start makes a ``reference`` (``make_reference``).

    Args:
        policy: The language model to train.
        optimizer: Builds the optimizer.
        schedule: Factor on the learning rate.
    """

    rows = (PreferencePair,)
    unit = "prompts"
    want: ClassVar[tuple[str, ...]] = ()  # of the policy's scores, beside log-probs

    def __init__(
        self, policy: Policy, optimizer: OptimizerCallable, schedule: Schedule | None = None
    ) -> None:
        super().__init__(optimizer, schedule)
        self.policy = policy

    @abstractmethod
    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair, from the policy's scores of all completions."""

    def losses(self, trees: PromptTrees) -> LossAndMetrics:
        """One loss per pair."""
        if not self.knows_rows:
            require_pairs(trees)
        scores = self.policy(trees, want=self.want)
        loss = self.pair_loss(trees, scores)
        chosen, rejected = split_pairs(scores.logps.detach())
        margins = loss.chosen_rewards - loss.rejected_rewards
        return loss.losses, {
            "loss": loss.losses.mean(),
            "rewards/chosen": loss.chosen_rewards.mean(),
            "rewards/rejected": loss.rejected_rewards.mean(),
            "rewards/margins": margins.mean(),
            "rewards/accuracies": accuracy(margins),
            "logps/chosen": chosen.mean(),  # absolute: likelihood displacement shows here
            "logps/rejected": rejected.mean(),
        }

    def four_logps(self, trees: PromptTrees, scores: Scores) -> FourLogps:
        """Summed log-probs ``[B]``: chosen, rejected of the policy, then of the reference."""
        return *split_pairs(scores.logps), *split_pairs(self.reference.token_logps(trees).sum(1))


def own_count(trees: PromptTrees, unit: str) -> int:
    """Count this batch's prompts, completions or tokens: the weight of its means.

    ``totals`` are the whole step's: as weights, they would count 3 rows here and 1 there alike.
    """
    if unit == "tokens":
        return int(trees.loss_mask.sum())
    return len(trees.prompt_lengths) if unit == "prompts" else len(trees.group)


def finite(losses: Tensor, trees: PromptTrees) -> Tensor:
    """``losses``, one for each prompt, each completion or in sum, unless one is not finite.

    Raises:
        FloatingPointError: A loss is NaN or infinite; names the rows at fault.
    """
    if bool(torch.isfinite(losses.detach()).all()):
        return losses
    raise FloatingPointError(_not_finite(losses.detach(), trees))


def _not_finite(losses: Tensor, trees: PromptTrees) -> str:
    rows = list(trees.ids)
    if losses.dim():
        prompts = trees.group.tolist() if len(losses) == len(trees.group) else range(len(rows))
        bad = (~torch.isfinite(losses)).nonzero()[:, 0].tolist()
        rows = list(dict.fromkeys(trees.ids[prompts[i]] for i in bad))
    return (
        f"loss is not finite for {len(rows)} rows, e.g. {rows[:5]}. Unless these rows are odd, "
        "the weights have diverged: lower the learning rate."
    )


def require_pairs(trees: PromptTrees) -> None:
    """Raise ``DataError`` unless every prompt has two completions."""
    pairs = torch.arange(len(trees.prompt_lengths), device=trees.group.device)
    if not torch.equal(trees.group, pairs.repeat_interleave(2)):
        raise DataError(
            "preference pairs need two completions per prompt. Use PreferenceData, or another "
            "objective."
        )


def split_pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Chosen and rejected ``[B]`` of a ``[2 B]`` tensor whose pairs stand together."""
    pairs = x.view(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def accuracy(margins: Tensor) -> Tensor:
    """Share of positive margins, a tie counting one half."""
    return ((margins > 0).float() + 0.5 * (margins == 0).float()).mean()
