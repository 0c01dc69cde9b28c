"""The memory that a forecast may take."""

from types import SimpleNamespace

import torch

from kronos_lightning.forecast.device import working_memory


def test_a_gpu_forecasts_with_an_eighth_of_its_memory(monkeypatch):
    for total, expected in ((4 * 2**30, 2**30), (80 * 2**30, 10 * 2**30)):
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device, total=total: SimpleNamespace(total_memory=total)
        )
        assert working_memory(torch.device("cuda")) == expected
    assert working_memory(torch.device("cpu")) == 2**30
