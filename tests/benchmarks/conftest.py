import os

import pytest
import torch


@pytest.fixture
def all_cores():
    """Let torch use every core; the other tests share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count())
    yield
    torch.set_num_threads(before)
