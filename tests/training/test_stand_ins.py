"""Constructors asked without models: every objective of the experiments can be built so far."""

import copy
from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import ConfigError
from alignlab.plan import overlay
from alignlab.plan.experiment import load_plan
from alignlab.training import fit


def one_of_each_class() -> dict[str, dict[str, Any]]:
    """Class of the objective -> a stage that trains it, from any experiment and scale."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(Path("experiments").glob("*/pipeline.yaml")):
        scales = (path.parent / "scales").glob("*.yaml")
        for scale in [None, *sorted(p.stem for p in scales if "smoke" not in p.stem)]:
            plan = load_plan(path.parent, scale=scale)
            for job in plan.jobs.values():
                if "config" in job.spec:
                    config = plan.resolved(job)["config"]
                    found.setdefault(config["model"]["class_path"], config)
    return found


EACH = one_of_each_class()


@pytest.mark.parametrize("name", EACH)
def test_constructors_are_reached_to_the_last(name: str) -> None:
    """The optimizer is asked after objective and data, so its complaint shows that they stood."""
    fit.check(EACH[name])
    config = copy.deepcopy(EACH[name])
    config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = -0.1
    with pytest.raises(ConfigError, match=r"model\.init_args\.optimizer: Invalid learning rate"):
        fit.check(config)


def refused(config: dict[str, Any], **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        fit.check(config, **settings)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.fixture
def dpo() -> dict[str, Any]:
    return copy.deepcopy(EACH["alignlab.objectives.dpo.DPO"])


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("trainer.max_steps", -3, "max_steps"),
        ("trainer.max_steps", None, "trainer.max_steps must be -1 for no bound, or above 0"),
        ("threads", None, "threads must be at least 1, got None"),
        ("trainer.max_epochs", -7, "max_epochs"),
        ("trainer.limit_val_batches", -1.0, "limit_val_batches"),
        ("trainer.val_check_interval", 7.5, "val_check_interval"),
        ("trainer.gradient_clip_algorithm", "median", "gradient_clip_algorithm"),
        ("trainer.max_time", "ten minutes", "trainer: `Timer(duration='ten minutes')` is not"),
        ("trainer.max_time", "99999999999:00:00:00", "trainer: "),
        ("trainer.accelerator", "tpu", "trainer: "),
        ("probe.samples", 0, "FrontierProbe needs samples"),
        ("probe.limit", 0, "FrontierProbe needs limit >= 1"),
        ("probe.seed", -1, "FrontierProbe needs limit >= 1 and a seed"),
        ("seed_everything", True, "seed_everything must be a whole number, got True"),
        ("seed_everything", None, "seed_everything"),
        ("model.init_args.beta", "0.1", "model.init_args.beta is the text '0.1'"),
        ("data.init_args.split", "null", "data.init_args.split is the text 'null'"),
        ("data.init_args.extra", {}, "unknown key data.init_args.extra"),
    ],
)
def test_the_trainer_and_its_callbacks_are_asked_too(
    dpo: dict[str, Any], place: str, value: Any, said: str
) -> None:
    overlay.set_dotted(dpo, place, value)
    assert said in refused(dpo)


@pytest.mark.parametrize("trainer", [None, True, 3, "fast", []])
def test_a_trainer_is_settings(dpo: dict[str, Any], trainer: Any) -> None:
    assert "trainer" in refused(dpo | {"trainer": trainer})


def test_devices_are_looked_for_where_the_training_will_run(dpo: dict[str, Any]) -> None:
    dpo["trainer"] |= {"accelerator": "tpu", "devices": 8, "num_nodes": 2}
    fit.check(dpo, here=False)


def test_the_probe_goes_before_a_bound_on_kl_however_they_are_written(dpo: dict[str, Any]) -> None:
    bound = {"class_path": "alignlab.callbacks.kl_bound.KLBound", "init_args": {"limit": 3.0}}
    dpo["trainer"]["callbacks"] = [bound]
    fit.check(dpo)
    probe = {"class_path": "alignlab.callbacks.probe.FrontierProbe", "init_args": dpo.pop("probe")}
    assert "reads what a FrontierProbe measures. Add one under the key probe" in refused(dpo)
    dpo["trainer"]["callbacks"] = [bound, probe]
    fit.check(dpo)
    dpo["probe"] = probe
    assert "there is a second FrontierProbe. Keep one, under the key probe." in refused(dpo)


def test_the_place_where_the_probe_was_is_told_the_new_one(dpo: dict[str, Any]) -> None:
    overlay.set_dotted(dpo, "trainer.callbacks.0.init_args.samples", 4)
    assert refused(dpo) == (
        "unknown key trainer.callbacks.0. The probe's settings are now keys of probe, such as "
        "probe.samples."
    )


@pytest.mark.parametrize(
    ("policy", "fits"),
    [
        ({"lora": {"rank": 4}}, True),
        ({}, True),  # its source may hold adapters, once it has been made
        ({"prompt_tuning": {"tokens": 4}}, False),
    ],
)
def test_a_value_on_adapters_needs_them(policy: dict[str, Any], fits: bool) -> None:
    """A pipeline's stages are checked so before any model exists."""
    ppo = copy.deepcopy(EACH["alignlab.objectives.ppo.PPO"])
    ppo["model"]["init_args"]["policy"] |= policy
    ppo["model"]["init_args"]["value"] = "adapter"
    if fits:
        fit.check(ppo)
        overlay.set_dotted(ppo, "model.init_args.optimizer.init_args.lr", -0.1)
        assert "Invalid learning rate" in refused(ppo)  # so all before it was built
    else:
        assert "a value function on adapters needs a policy with LoRA" in refused(ppo)


def test_a_point_of_the_frontier_needs_a_probe(dpo: dict[str, Any]) -> None:
    fit.check(dpo, evaluated=True)
    del dpo["probe"]
    fit.check(dpo)
    assert "but it has no probe. Add a FrontierProbe" in refused(dpo, evaluated=True)


def test_a_config_that_is_checked_stays_as_it_was(dpo: dict[str, Any]) -> None:
    before = copy.deepcopy(dpo)
    fit.check(dpo)
    assert dpo == before


@pytest.mark.parametrize("source", ["org/a-model", "."])
def test_weights_in_4_bits_without_adapters_are_refused_before_the_start(
    dpo: dict[str, Any], source: str
) -> None:
    dpo["model"]["init_args"]["policy"] = {"source": source, "quantised": {"double": True}}
    assert "weights in 4 bits cannot be trained" in refused(dpo)
    dpo["model"]["init_args"]["policy"]["source"] = "./what/an/earlier/stage/makes"
    fit.check(dpo)  # it may be adapters
    dpo["model"]["init_args"]["policy"] = {"source": source, "attn_implementation": "flash"}
    assert "Set one of eager, " in refused(dpo)
