"""Whether the Hugging Face hub answers, asked once a process.

Its libraries ask five times, with pauses, before they give up: three quarters of a minute for every
name that is no folder on a machine without a network.
"""

import logging
from functools import cache

PATIENCE = 5.0  # seconds for one answer


@cache
def ask_hub() -> str | None:
    """Why the hub cannot be reached, or ``None`` if it answers.

    Where it does not answer, its libraries use their caches alone from now on and say at once what
    is not there, as with ``HF_HUB_OFFLINE=1``.
    """
    from huggingface_hub import constants, get_session

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its news on tokens and retries
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception as problem:  # of whatever HTTP library it uses
        constants.HF_HUB_OFFLINE = True
        return f"{constants.ENDPOINT} does not answer: {problem}"
    return None
