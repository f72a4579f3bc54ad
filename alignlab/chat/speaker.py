"""A policy that replies to a conversation, or continues a text if it has no chat template."""

from collections.abc import Iterator
from dataclasses import replace

from alignlab.chat.streaming import stream
from alignlab.data.rows import Prompt, RowReport, Text
from alignlab.data.tokenise import tokenise
from alignlab.errors import DataError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.rollouts.samples import Samples


class Speaker:
    """One side of ``alignlab chat``.

    Args:
        name: In the heading of its replies.
        policy: Replies; in eval mode.
        most: Longest reply in tokens.
        spec: Temperature, top-k and top-p.
        seed: Of the noise.
    """

    def __init__(
        self, name: str, policy: Policy, *, most: int, spec: SamplingSpec, seed: int
    ) -> None:
        self.name, self.policy = name, policy
        self._most, self._spec, self._seed = most, spec, seed

    @property
    def chats(self) -> bool:
        """Whether its tokenizer has a chat template."""
        return bool(self.policy.tokenizer.chat_template)

    def reply(self, prompt: Text, turn: int) -> Iterator[str]:
        """The reply in words, longer each time.

        Args:
            prompt: A conversation that the user spoke last in, or a text to continue.
            turn: Another number is fresh noise.

        Raises:
            DataError: The template refuses the conversation, or it fills the model's context.
        """
        report = RowReport("the conversation", seen=1)
        (tree,) = tokenise([Prompt(f"turn {turn}", prompt)], self.policy.tokenizer, report)
        room = self.policy.room
        most = self._most if room is None else min(self._most, room - len(tree.prompt))
        if most < 1:
            raise DataError(
                f"{self.name}: the conversation has {len(tree.prompt)} tokens, which fills the "
                f"model's context of {room}. Start a new one with /new."
            )
        drawn = stream(self.policy, tree, most=most, spec=self._spec, seed=self._seed, rollout=turn)
        for ids in drawn:
            ends = ids[-1] in self.policy.stop_ids
            said = Samples([replace(tree, completions=(ids,))], [], [[ends]])
            yield said.texts(self.policy.tokenizer)[1][0]
