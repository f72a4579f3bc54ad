"""The messages are real ones, as jsonargparse raised them."""

import pytest
from jsonargparse import Namespace

from alignlab.functional.sampling import SamplingSpec
from alignlab.objectives.on_policy import Sampling
from alignlab.parser_errors import in_one_line, null_for_value

NOT_THIS = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'alignlab.objectives.base.Objective'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'alignlab.objectives.dpo.DPO':
        {}
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {{'class_path': 'alignlab.objectives.dpo.DPO', 'init_args': {{'beta': 1}}}}"""
OPTIMIZER = """Parser key "optimizer":
          Type typing.Callable[[Iterable], torch.optim.optimizer.Optimizer] expects a function \
or a callable class: {}. Got value: Namespace(class_path='torch.optim.AdamW', \
init_args=Namespace(lr='abc'))"""
LEARNING_RATE = """Parser key "lr":

            - Expected a path but abc either not accessible or invalid
            - Does not validate against any of the Union subtypes
            Subtypes: [<class 'float'>, <class 'torch.Tensor'>]
            Errors:
              - Expected a <class 'float'>
              - Expected a dot import path string: abc
            Given value type: <class 'str'>
            Given value: abc"""


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        (
            """Parser key "beta":\n          Expected a <class 'float'>. Got value: abc""",
            "model.init_args.beta must be a number, got abc.",
        ),
        (
            """Parser key "reference":\n          Expected a typing.Literal['auto', 'frozen']. \
Got value: foo""",
            "model.init_args.reference must be one of ['auto', 'frozen'], got foo.",
        ),
        (
            OPTIMIZER.format(LEARNING_RATE),
            "model.init_args.optimizer.init_args.lr must be a number, got abc.",
        ),
        (
            OPTIMIZER.format("module 'torch.optim' has no attribute 'AdamWW'"),
            "model.init_args.optimizer: module 'torch.optim' has no attribute 'AdamWW'. "
            "Check the class_path.",
        ),
        (
            OPTIMIZER.format("No module named 'bitsandbytes'"),
            "model.init_args.optimizer: No module named 'bitsandbytes'. "
            "Install it with: pip install 'alignlab[quantised]'.",
        ),
    ],
)
def test_names_the_whole_key_and_what_is_wrong(inner: str, said: str) -> None:
    assert in_one_line(NOT_THIS.format(inner)) == said


def test_an_unknown_key_comes_with_the_known_ones() -> None:
    said = in_one_line(NOT_THIS.format("Option 'betaa' is not accepted"))
    assert said.startswith(
        "unknown key model.init_args.betaa, did you mean beta? DPO accepts: policy, optimizer, beta"
    )
    said = in_one_line(NOT_THIS.format(OPTIMIZER.format("Option 'lrr' is not accepted")))
    key = "model.init_args.optimizer.init_args.lrr, did you mean lr?"
    assert said.startswith(f"unknown key {key} AdamW accepts: ")


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        (
            "unrecognized arguments: --policyx.source=x",
            "unknown key model.init_args.policyx, did you mean policy? DPO accepts: policy, ",
        ),
        (
            "the following arguments are required: optimizer",
            "model.init_args.optimizer must be given (it is left out or null).",
        ),
        (
            """Parser key "clip":\n  Errors:\n    - Expected a <class 'int'>\n    - Expected a \
<class 'float'>\n  Given value type: <class 'str'>\n  Given value: abc""",
            "model.init_args.clip must be a number, got abc.",
        ),
        (
            """Parser key "seed":\n  - Expected a <class 'bool'>\n  - Expected a <class 'int'>\n\
  Given value: None""",
            "model.init_args.seed must be true or false or a whole number, got null.",
        ),
    ],
)
def test_what_was_told_as_a_dump_is_one_sentence(inner: str, said: str) -> None:
    inner = inner.replace("\n", "\n        ")
    assert in_one_line(NOT_THIS.format(inner)).startswith(said)


def test_a_value_is_told_without_the_other_classes_that_might_have_stood_there() -> None:
    message = """Parser key "pretraining":
  Does not validate against any of the Union subtypes
  Errors:
    - Problem with given class_path 'alignlab.data.modules.TextData':
        Parser key "batch_size":
          Expected a <class 'int'>. Got value: x
    - Import path alignlab.data.modules.TextData does not correspond to a subclass of Other
    - Expected a <class 'NoneType'>"""
    said = in_one_line(message)
    assert said == "pretraining.init_args.batch_size must be a whole number, got x."


def test_a_class_of_another_kind_and_one_that_is_none() -> None:
    message = (
        'Parser key "data":\n  Does not validate against any of the Union subtypes\n  Errors:\n'
        "    - {}\n    - Expected a <class 'NoneType'>\n  Given value: x"
    )
    said = in_one_line(
        message.format("Import path torch.nn.Linear does not correspond to a subclass of TreeData")
    )
    assert said == "data.class_path: torch.nn.Linear is no TreeData. Name a class that is one."
    said = in_one_line(message.format("Expected a dot import path string: Nonsense"))
    assert said == "data: no class 'Nonsense'. Give its full path, package.module.Class."


def test_an_unknown_option_is_told_the_nearest() -> None:
    options = ["trainer.max_steps", "threads"]
    said = in_one_line("unrecognized arguments: --trainer.max_step 5", options)
    assert said.endswith("--trainer.max_step 5, did you mean trainer.max_steps?")
    said = in_one_line("Group 'trainer' does not accept option 'max_stepps'", options)
    assert said == "unknown key trainer.max_stepps, did you mean trainer.max_steps?"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Option 'modelx' is not accepted", "unknown key modelx."),
        ("Group 'trainer' does not accept option 'x'", "unknown key trainer.x."),
        (
            """Parser key "trainer.max_steps":\n  Expected a <class 'int'>. Got value: many""",
            "trainer.max_steps must be a whole number, got many.",
        ),
        (
            "the following arguments are required: data, model",
            "the following arguments are required: data, model",
        ),
    ],
)
def test_short_messages(message: str, said: str) -> None:
    assert in_one_line(message) == said


def test_a_class_without_a_signature_in_python_is_told_all_the_same() -> None:
    message = "Problem with given class_path 'torch.Tensor':\nOption 'a' is not accepted"
    assert in_one_line(message).startswith("unknown key a")


def test_a_null_inside_a_group_is_told_by_its_key() -> None:
    spec = Namespace(temperature=1.0, top_k=0, top_p=None)
    assert null_for_value(SamplingSpec, vars(spec)) == "top_p must be a number, got null"
    sampling = {"max_new_tokens": 6, "spec": spec}
    assert null_for_value(Sampling, sampling) == "spec.top_p must be a number, got null"
    assert str(null_for_value(Sampling, sampling | {"spec": None})).startswith("spec must be ")
    assert null_for_value(Sampling, {"max_new_tokens": 6, "spec": Namespace(top_p=1.0)}) is None
