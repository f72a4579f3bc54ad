import pytest

from tests.robustness.budget import fuzz_cases, kills


def test_a_short_run_unless_the_environment_asks_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALIGNLAB_KILLS", "ALIGNLAB_FUZZ"):
        monkeypatch.delenv(name, raising=False)
    assert (kills(), fuzz_cases()) == (4, 300)
    monkeypatch.setenv("ALIGNLAB_KILLS", "250")
    monkeypatch.setenv("ALIGNLAB_FUZZ", "10000")
    assert (kills(), fuzz_cases()) == (250, 10_000)
    monkeypatch.setenv("ALIGNLAB_KILLS", "many")
    with pytest.raises(pytest.UsageError, match="ALIGNLAB_KILLS must be a whole number"):
        kills()
