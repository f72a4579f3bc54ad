"""The lecture's sums, by hand: 175 B parameters at 16 or 18 bytes trained and 2 bytes frozen."""

import pytest

from alignlab.capacity.copies import DEVICES, bytes_of_copies, devices_for

GPT3 = 175e9
A100 = DEVICES["a100-80gb"].memory


def test_four_copies_of_a_175b_model_with_float32_gradients_take_7_tb() -> None:
    size = bytes_of_copies([GPT3, GPT3], [GPT3, GPT3], gradient=4)
    assert size == 2 * 175e9 * 18 + 2 * 175e9 * 2 == 7.0e12
    assert devices_for(size, A100) == 88  # 87.5


def test_with_bfloat16_gradients_they_take_6_3_tb() -> None:
    size = bytes_of_copies([GPT3, GPT3], [GPT3, GPT3])
    assert size == 6.3e12
    assert devices_for(size, A100) == 79  # 78.75


def test_instructgpt_with_reward_and_value_of_6b_takes_3_26_tb() -> None:
    size = bytes_of_copies([GPT3, 6e9], [GPT3, 6e9])
    assert size == 2800e9 + 96e9 + 350e9 + 12e9 == 3.258e12
    assert devices_for(size, A100) == 41  # 40.7


def test_a_plain_float32_run_has_no_second_copy_of_its_weights() -> None:
    assert bytes_of_copies([10], weight=4, gradient=4, master=0) == 160


@pytest.mark.parametrize(("size", "devices"), [(80e9, 1), (80e9 + 1, 2), (1, 1)])
def test_a_device_more_is_needed_for_one_byte_more(size: float, devices: int) -> None:
    assert devices_for(size, 80e9) == devices
