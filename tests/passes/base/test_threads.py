"""How many threads work on a network: one on a small one, for waking others costs more."""

import pytest
import torch
from compressor.passes.base.threads import SMALL, suited


@pytest.mark.parametrize(("macs", "wanted"), [(SMALL - 1, 1), (SMALL, 2), (100 * SMALL, 2)])
def test_a_small_network_gets_one_thread_and_afterwards_all_are_back(macs, wanted):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with suited(macs):
            assert torch.get_num_threads() == wanted
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
