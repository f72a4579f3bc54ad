"""What is looked at before a model is loaded."""

import pytest

from alignlab.errors import DataError
from alignlab.files import seal
from alignlab.models.policy import Policy
from tests.test_files import flip


def test_weights_that_changed_since_they_were_written_are_refused(build, tmp_path) -> None:
    build("llama").save(tmp_path)
    seal(tmp_path)
    Policy(str(tmp_path))
    flip(tmp_path / "model.safetensors", 3000)
    with pytest.raises(DataError, match=r"model\.safetensors is not what was written"):
        Policy(str(tmp_path))
    (tmp_path / "sealed.json").unlink()  # the change is meant
    Policy(str(tmp_path))
