"""The doctor: what each of its checks must see, and what it must leave as it was."""

from tests.mutation_lists.mutation import Mutation

FAULTS = "doctor/test_faults.py::test_a_fault_is_found"
MUTATIONS = (
    Mutation(
        "rows are compared with themselves",
        "doctor/forwards.py",
        "alone = torch.cat([_read(model, [tree]) for tree in each])",
        "alone = together",
        f"{FAULTS}[completions see each other]",
    ),
    Mutation(
        "the doctor leaves its flat layout",
        "doctor/forwards.py",
        "            model.layout = kept",
        "            pass",
        "doctor/test_faults.py::test_what_is_checked_is_not_changed",
    ),
    Mutation(
        "any dtype of log-probs is fine",
        "doctor/forwards.py",
        "if scores.token_logps.dtype.itemsize < 4:",
        "if scores.token_logps.dtype.itemsize < 2:",
        f"{FAULTS}[log-probs in float16]",
    ),
    Mutation(
        "no weight of the reference counts as shared",
        "doctor/start.py",
        "sum(_storage(p) in learns for p in kept)",
        "sum(p in () for p in kept)",
        f"{FAULTS}[the reference shares the policy's storage]",
    ),
    Mutation(
        "the reference is compared with itself",
        "doctor/start.py",
        "now = policy(batch, spec=spec)",
        "now = known.policy(batch, spec=spec)",
        f"{FAULTS}[the reference is another model]",
    ),
    Mutation(
        "weights may be NaN",
        "doctor/start.py",
        "not bool(torch.isfinite(local(weight.detach())).all()):",
        "weight is None:",
        f"{FAULTS}[a weight is not a number]",
    ),
    Mutation(
        "any loss is log 2",
        "doctor/start.py",
        "if math.isclose(loss, math.log(2), rel_tol=1e-2):",
        "if loss > 0:",
        f"{FAULTS}[a loss with another term]",
    ),
    Mutation(
        "rewards are asked for in one order only",
        "doctor/start.py",
        "checked_rewards(reward, prompts[::-1], completions[::-1]).flip(0)",
        "checked_rewards(reward, prompts, completions)",
        f"{FAULTS}[a reward depends on its batch]",
    ),
    Mutation(
        "a completion may end in any token",
        "doctor/rows.py",
        "ids[-1] in stops and (",
        "ids[-1] is not None and (",
        f"{FAULTS}[EOS is missing in the data]",
    ),
    Mutation(
        "two BOS tokens are as good as one",
        "doctor/rows.py",
        "if counts.keys() == {1}:",
        "if counts.keys() <= {1, 2}:",
        f"{FAULTS}[the template writes BOS twice]",
    ),
    Mutation(
        "the first completion counts as preferred whatever its score",
        "doctor/rows.py",
        "(scores[:, 0] > scores[:, 1])",
        "(scores[:, 0] != scores[:, 1])",
        f"{FAULTS}[chosen and rejected are exchanged]",
    ),
    Mutation(
        "bad data are a warning",
        "doctor/finding.py",
        "except (ConfigError, DataError, FloatingPointError) as error:",
        "except (ConfigError, FloatingPointError) as error:",
        "doctor/test_finding.py::test_a_users_error_is_a_stop_and_any_other_failure_a_warning",
    ),
    Mutation(
        "the plan of a disk forgets checkpoints",
        "doctor/machine.py",
        "CHECKPOINTS = 3",
        "CHECKPOINTS = 1",
        "doctor/test_machine.py::test_a_disk_must_hold_three_checkpoints_and_the_model",
    ),
    Mutation(
        "the largest KL that may follow is held against the limit",
        "doctor/trial.py",
        "if least <= self.limit:",
        "if most <= self.limit:",
        "doctor/test_trial.py::"
        "test_the_smallest_kl_that_follows_is_held_against_the_limit[0.1-30.0-50.0-ok-3 to 90]",
    ),
    Mutation(
        "a stop is a success",
        "doctor/command.py",
        "STOPPED = 2",
        "STOPPED = 0",
        "doctor/test_command.py::test_what_the_parser_and_constructors_refuse_is_a_stop",
    ),
    Mutation(
        "a stop does not end a run",
        "doctor/examine.py",
        'if each.state == "stop"]:',
        'if each.state == "stops"]:',
        "doctor/test_command.py::test_a_stop_ends_a_run_before_its_first_step",
    ),
)
