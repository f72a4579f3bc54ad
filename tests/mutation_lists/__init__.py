"""The bugs that tests must see, a list a file."""

from dataclasses import replace

from tests.mutation_lists import (
    adapters,
    addresses,
    capacity,
    chat,
    check_data,
    command_line,
    data,
    direct,
    doctor,
    durability,
    evaluation,
    export,
    families,
    figures,
    loading,
    models,
    policy_gradient,
    pooled,
    precision,
    records,
    refusals,
    rewards,
    rows,
    second_round,
    stored,
    study,
    sweep,
    templates,
    training,
    tuning,
    watching,
    win_rates,
)
from tests.mutation_lists.mutation import Mutation

LISTS = (
    capacity,
    check_data,
    command_line,
    durability,
    data,
    templates,
    models,
    loading,
    adapters,
    rewards,
    direct,
    policy_gradient,
    pooled,
    training,
    evaluation,
    figures,
    sweep,
    families,
    precision,
    rows,
    refusals,
    second_round,
    addresses,
    export,
    stored,
    chat,
    records,
    watching,
    win_rates,
    doctor,
    tuning,
    study,
)
MUTATIONS: tuple[Mutation, ...] = tuple(
    replace(mutation, group=entries.__name__.rpartition(".")[2])
    for entries in LISTS
    for mutation in entries.MUTATIONS
)
