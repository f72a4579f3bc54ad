"""A hub that does not answer is asked once, and what is missing is reported at once."""

import time
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from alignlab.errors import ConfigError
from alignlab.hub import ask_hub
from alignlab.models.loading import load_tokenizer


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    ask_hub.cache_clear()
    yield
    ask_hub.cache_clear()


def test_no_answer_is_told_in_one_sentence_and_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load_tokenizer("my/model")
    assert time.monotonic() - began < 10
    said = str(caught.value)
    assert said.startswith("no such folder for a tokenizer: my/model (in ")
    assert "http://127.0.0.1:9 does not answer" in said
    assert "\n" not in said
    assert constants.HF_HUB_OFFLINE
