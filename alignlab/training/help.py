"""The text of ``alignlab fit --help``, read from the sources because imports take seconds."""

import ast
import contextlib
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise

from alignlab.errors import ConfigError
from alignlab.stages.listing import PACKAGE, listed

PAGE = """\
usage: alignlab {command} DIR:STAGE [--scale NAME] [--seed N] [--point K] [--results DIR]
                    [--KEY VALUE ...]
       alignlab {command} --config STAGE.yaml [--config OVERLAY.yaml ...] [--KEY VALUE ...]
       alignlab fit --resume RUN_FOLDER

{what} DIR:STAGE is a stage of an experiment, such as experiments/quickstart:dpo,
with the settings and inputs that the pipeline gives it. A stage file of your own has a model, data
and a trainer. Every key is also an option; a later value overrides an earlier one.

options of DIR:STAGE:
  --scale NAME        use the scale DIR/scales/NAME.yaml
  --seed N            the run's seed, if the stage runs once per seed (default: the first)
  --point K           which point of the stage's grid, from 0 (default: 0)
  --results DIR       where its inputs are (default: results/<experiment>[-<scale>])

options:
  --config FILE       a stage file; a second one, or one beside DIR:STAGE, overrides keys
  --KEY VALUE         any key of the stage: --model.init_args.beta 0.2, --trainer.max_steps 100
  --resume [FOLDER]   continue the run in FOLDER from its last.ckpt, in the same folder (without
                      FOLDER: the newest run of the stage's trainer.default_root_dir)
  --ckpt_path FILE    start from this checkpoint, in a new folder
  --non_finite skip   leave out a step whose loss or gradient is not finite (default: stop)
  --threads N         CPU threads (default: 1)
  --print_config      print all settings and stop
  --debug             show the traceback of an error

objectives (model.class_path):
{objectives}

data (data.class_path):
{data}

A class with its arguments: alignlab {command} --model alignlab.objectives.dpo.DPO --help

examples:
  alignlab run experiments/quickstart --only sft,pairs
  alignlab fit experiments/quickstart:dpo --model.init_args.beta 0.2
  alignlab fit experiments/quickstart:dpo --data.init_args.source my/pairs.jsonl
  alignlab fit --config experiments/own_data/dpo.yaml
  alignlab fit --resume lightning_logs/version_0
"""
WHAT = {"fit": "Train one stage.", "validate": "Evaluate one stage on its validation rows."}


def show(command: str, words: Sequence[str]) -> None:
    """Show the page of ``fit``, or with ``--model`` or ``--data`` the arguments of the class.

    Raises:
        ConfigError: There are no words; the page is shown first.
    """
    pairs = [*pairwise([*words, ""]), *(word.split("=", 1) for word in words if "=" in word)]
    named = [(a, b) for a, b in pairs if a in ("--model", "--data") and b]
    if named:
        from alignlab.training.fit import Command

        for option, value in named:
            with contextlib.suppress(SystemExit):  # the parser prints the class's help and ends
                Command([f"{option}.help", value])
    elif words:
        print(page(command))
    else:
        print(page(command), file=sys.stderr)
        raise ConfigError(f"{command} needs an address, DIR:STAGE, or --config STAGE.yaml.")


def page(command: str) -> str:
    """The help of ``fit`` or ``validate``."""
    data = [(f"alignlab.data.modules.{name}", what) for name, what in _data_modules()]
    data.append(("alignlab.data.rollout_data.RolloutData", "prompts that rollouts are sampled for"))
    return PAGE.format(
        command=command, what=WHAT[command], objectives=listed(objectives()), data=listed(data)
    )


def objectives() -> list[tuple[str, str]]:
    """Path and name of every objective, that is, of each file with a ``<file name>_loss``."""
    found = []
    for path in sorted((PACKAGE / "objectives").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        losses = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
        if any(function.name == f"{path.stem}_loss" for function in losses):
            name = [n.name for n in tree.body if isinstance(n, ast.ClassDef)][-1]
            found.append((f"alignlab.objectives.{path.stem}.{name}", _first_words(tree)))
    return found


def _data_modules() -> Iterator[tuple[str, str]]:
    tree = ast.parse((PACKAGE / "data" / "modules.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(
            isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "kind"
            for each in node.body
        ):
            yield node.name, _first_words(node)


def _first_words(node: ast.Module | ast.ClassDef) -> str:
    """The first sentence of a docstring, without the paper that it names."""
    first = (ast.get_docstring(node) or "").split("\n")[0]
    return first.partition(" (")[0].partition(": ")[0].rstrip(".,")
