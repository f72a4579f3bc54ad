"""alignlab's side: its objectives under Lightning's Trainer, as ``alignlab fit`` sets them up."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import transformers.models.llama.modeling_llama  # noqa: F401  # counts as an import
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from alignlab.data.rollouts import RolloutLoader
from alignlab.data.rows import Demonstration, JudgedCompletion, PreferencePair
from alignlab.data.trees import PromptTree, PromptTrees, collate
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Policy, ScoreModel
from alignlab.models.modes import reading
from alignlab.objectives import on_policy
from alignlab.objectives.base import Objective
from alignlab.objectives.dpo import DPO
from alignlab.objectives.grpo import GRPO
from alignlab.objectives.kto import KTO
from alignlab.objectives.on_policy import Sampling
from alignlab.objectives.orpo import ORPO
from alignlab.objectives.ppo import PPO
from alignlab.objectives.rloo import RLOO
from alignlab.objectives.rm import RewardModel
from alignlab.objectives.sft import SFT
from alignlab.objectives.simpo import SimPO
from alignlab.rollouts.sampler import sample
from alignlab.rollouts.samples import Samples
from alignlab.training.fit import NOT_SHOWN, TRAINER_DEFAULTS
from sides.work import Case, Meter, changes, reward_of, stop_ids, units_of

KINDS = {"sft": Demonstration, "kto": JudgedCompletion}  # the others train on pairs


def run(case: Case, folder: Path) -> dict[str, Any]:
    """Train, or sample, and measure."""
    meter = Meter(case.warmup)
    return (
        rollouts(case, folder, meter) if case.objective == "rollout" else train(case, folder, meter)
    )


class Steps(L.Callback):
    """Gives the meter every step and its loss."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_batch_end(self, *args: Any) -> None:
        """Lightning's hook after the optimizer's step."""
        self.meter.losses.append(float(args[2]["loss"]))
        self.meter.step()


@dataclass(eq=False)
class Rows(L.LightningDataModule):
    """The case's rows, tokenised already, in their own order.

    Args:
        case: Whose rows they are.
    """

    case: Case

    def __post_init__(self) -> None:
        super().__init__()
        self.kind = KINDS.get(self.case.objective, PreferencePair)
        self.train_trees, self.validation_trees = trees_of(self.case), list[PromptTree]()

    def train_dataloader(self) -> Any:
        """One epoch; where completions are sampled, as many phases as there are steps."""
        if not self.case.samples:
            return Batches(self.case, self.train_trees)
        return RolloutLoader(
            self._collect,
            prompts=self.case.batch,
            minibatches=1,
            micro_batches=1,
            inner_epochs=1,
            seed=0,
        )

    def _collect(self, rollout: int) -> Any:
        size, module = self.case.batch, self.trainer.lightning_module
        prompts = self.train_trees[rollout * size : (rollout + 1) * size]
        return module.collect(prompts, self.case.k, rollout)


@dataclass(eq=False)
class Batches:
    """Sized, so that it is read as alignlab's own loader is."""

    case: Case
    trees: Sequence[PromptTree]

    def __len__(self) -> int:
        return len(self.case.batches)

    def __iter__(self) -> Iterator[PromptTrees]:
        rest = iter(self.trees)
        for rows in self.case.batches:
            yield collate([next(rest) for _ in rows])


def trees_of(case: Case) -> list[PromptTree]:
    """The case's rows as alignlab takes them; judged ones are desirable in turn."""
    rows = [row for batch in case.batches for row in batch]
    judged = case.objective == "kto"
    return [
        PromptTree(
            i,
            str(i),
            tuple(row["prompt"]),
            tuple(map(tuple, row["completions"])),
            labels=(float(i % 2 == 0),) if judged else None,
        )
        for i, row in enumerate(rows)
    ]


class Rule:
    """The rows' reward."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]``."""
        return torch.tensor([reward_of(text) for text in completions])


def objective_of(case: Case, model: Policy | ScoreModel, folder: Path) -> Objective:
    """The case's objective on ``model``; cached log-probs lie in ``folder``."""
    optimizer = partial(torch.optim.AdamW, lr=case.lr, weight_decay=0.0)
    cache = str(folder / f"cache-{case.precision}") if case.cached else None
    kind: Any = "cached" if case.cached else "auto"
    sampling = Sampling(case.completion, stop_at_eos=True, centre_rewards=False)
    make: dict[str, Any] = {
        "dpo": lambda: DPO(model, optimizer, beta=0.1, reference=kind, reference_cache=cache),
        "simpo": lambda: SimPO(model, optimizer, beta=2.0, gamma=0.5),
        "orpo": lambda: ORPO(model, optimizer, lam=0.1),
        "kto": lambda: KTO(model, optimizer, beta=0.1),
        "sft": lambda: SFT(model, optimizer),
        "rm": lambda: RewardModel(model, optimizer),
        "ppo": lambda: PPO(model, Rule(), sampling, optimizer),
        "rloo": lambda: RLOO(model, Rule(), sampling, optimizer, kl_coef=0.05),
        "grpo": lambda: GRPO(
            model, Rule(), sampling, 0.2, optimizer, scale_by_std=False, kl_coef=0.04
        ),
    }
    return make[case.objective]()


def model_of(case: Case, folder: Path) -> Policy | ScoreModel:
    """The model in ``folder`` that the case trains."""
    if case.objective == "rm":
        return ScoreModel(str(folder / "scorer"), **case.policy)
    return Policy(str(folder / "model"), **case.policy)


def trainer_of(case: Case, folder: Path, meter: Meter, **settings: Any) -> L.Trainer:
    """Lightning's trainer as ``alignlab fit`` makes it, without checkpoints and progress bar."""
    return L.Trainer(
        **{
            **TRAINER_DEFAULTS,
            "accelerator": "cpu",
            "accumulate_grad_batches": 1,
            "max_steps": len(case.batches),
            "gradient_clip_val": 1.0,
            "precision": "bf16-mixed" if case.bf16 else "32-true",
            "logger": CSVLogger(folder / "logs"),
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "callbacks": [Steps(meter)],
            **settings,
        }
    )


def train(case: Case, folder: Path, meter: Meter, **settings: Any) -> dict[str, Any]:
    """Train and measure; of given completions, what the updates did to their log-probs.

    Args:
        case: The work.
        folder: Holds the model.
        meter: Gets every step, unless ``settings`` have other ``callbacks``.
        settings: Of the trainer.
    """
    for silenced in NOT_SHOWN:
        warnings.filterwarnings("ignore", **silenced)
    data, objective = Rows(case), objective_of(case, model_of(case, folder), folder)
    if not case.samples or not case.given:
        trainer_of(case, folder, meter, **settings).fit(objective, datamodule=data)
        return meter.result(units_of(case))
    on_policy.sample = partial(given_samples, case)  # type: ignore[assignment]
    watched = collate(data.train_trees[:2])
    before = logps_of(objective.policy, watched)
    trainer_of(case, folder, meter, **settings).fit(objective, datamodule=data)
    meter.losses = changes(before, logps_of(objective.policy, watched))
    return meter.result(units_of(case))


def logps_of(policy: Policy, trees: PromptTrees) -> list[float]:
    """Summed log-probs of completions."""
    with reading(policy):
        return policy(trees).logps.tolist()


def given_samples(case: Case, policy: Policy, prompts: Sequence[PromptTree], **_: Any) -> Samples:
    """The prompts' own completions, as if they had been sampled."""
    trees = [replace(tree) for tree in prompts]
    with reading(policy):
        scores = policy(collate(trees).to(policy.device))
    rows = [logps[mask].cpu() for logps, mask in zip(scores.token_logps, scores.mask, strict=True)]
    k = case.k
    return Samples(
        trees=trees,
        token_logps=[rows[i : i + k] for i in range(0, len(rows), k)],
        finished=[[True] * k for _ in trees],
    )


def rollouts(case: Case, folder: Path, meter: Meter) -> dict[str, Any]:
    """Sample, and say how many tokens; the check is greedy, and says which."""
    policy = Policy(str(folder / "model"), **case.policy).eval()
    spec = SamplingSpec(temperature=0.0) if case.given else SamplingSpec()
    tokens = 0
    for call, rows in enumerate(case.batches):
        trees = [PromptTree(i, str(i), tuple(row["prompt"]), ()) for i, row in enumerate(rows)]
        with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
            drawn = sample(
                policy,
                trees,
                samples=case.k,
                max_new_tokens=case.completion,
                spec=spec,
                seed=call,
                stop_ids=stop_ids(case),
                batch_size=case.batch * case.k,
            )
        meter.step()
        made = [ids for tree in drawn.trees for ids in tree.completions]
        if call >= case.warmup:
            tokens += sum(map(len, made))
        meter.losses += [float(sum(ids)) for ids in made[:: case.k]] if case.given else []
    return meter.result(tokens)
