"""``alignlab chat``: a conversation with a policy, or with two side by side."""
