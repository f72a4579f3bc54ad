"""Find cycles of preferences: a over b, b over c, c over a (Condorcet's paradox).

No scores can agree with all rows of a cycle. If its rows weigh the same, Bradley-Terry converges to
equal scores for its members and a loss of log 2. Cycles that come from noise cost accuracy; if they
come from raters who want different things, no single reward model is right.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.data.rows import PreferencePair, Text, prompt_key


@dataclass(frozen=True, slots=True)
class Cycle:
    """Completions of one prompt in a cycle: each is preferred, directly or not, to all others.

    Args:
        prompt: Their prompt.
        completions: The members, in the order in which the data name them.
        rows: Ids of the pairs among them. Each lies on a cycle; without them there is none here.
    """

    prompt: Text
    completions: tuple[Text, ...]
    rows: tuple[str, ...]


def find_cycles(pairs: Sequence[PreferencePair]) -> list[Cycle]:
    """The strongly connected components of each prompt's graph of preferences, chosen -> rejected.

    Two raters who disagree on a pair make the shortest one. A text that was cut off and the same
    text that ended are two completions. Time grows linearly with the pairs.
    """
    if not pairs:
        return []
    nodes: dict[tuple[str, Text, bool], int] = {}
    edges = []
    for pair in pairs:
        prompt = prompt_key(pair)
        sides = (prompt, pair.chosen, pair.chosen_ends), (prompt, pair.rejected, pair.rejected_ends)
        edges.append(tuple(nodes.setdefault(side, len(nodes)) for side in sides))
    starts, ends = zip(*edges, strict=True)
    part = strong_parts(starts, ends, len(nodes))
    members, rows = defaultdict(list), defaultdict(list)
    for (_, completion, _), node in nodes.items():
        members[part[node]].append(completion)
    for pair, (start, end) in zip(pairs, edges, strict=True):
        if part[start] == part[end]:
            rows[part[start]].append(pair)
    return [
        Cycle(inside[0].prompt, tuple(members[name]), tuple(pair.id for pair in inside))
        for name, inside in rows.items()
    ]


def strong_parts(starts: Any, ends: Any, nodes: int) -> Any:
    """The strongly connected component of each of ``nodes`` nodes, by the edges' two ends."""
    # Imported here: only who asks for cycles waits for it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array(([1] * len(starts), (starts, ends)), shape=(nodes, nodes))
    return connected_components(graph, directed=True, connection="strong")[1]
