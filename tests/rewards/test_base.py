import torch
from jsonargparse import ArgumentParser

from alignlab.rewards.base import Reward
from alignlab.rewards.rule import ToySentiment


class Shouting:
    def __init__(self, marks: str = "!") -> None:
        self.marks = marks

    def __call__(self, prompts: list[str], completions: list[str]) -> torch.Tensor:
        return torch.tensor([float(text.count(self.marks)) for text in completions])


class Trainee:
    def __init__(self, reward: Reward) -> None:
        self.reward = reward


def test_what_is_a_reward() -> None:
    assert isinstance(Shouting(), Reward)
    assert isinstance(ToySentiment(), Reward)
    assert not isinstance(Shouting, Reward)  # a class is not an object of it
    assert not isinstance("text", Reward)


def test_yaml_names_a_reward_that_need_not_inherit() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Trainee, "trainee")
    spec = {"class_path": f"{__name__}.Shouting", "init_args": {"marks": "?"}}
    parsed = parser.parse_object({"trainee": {"reward": spec}})
    reward = parser.instantiate(parsed).trainee.reward
    assert reward(["a", "b"], ["?!", "??"]).tolist() == [1.0, 2.0]
