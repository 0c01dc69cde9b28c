"""Batch and learning rate by the number of processes."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from kronos_lightning.training.scaling import Scale, ScalingError
from tests.helpers.commands import QUICK_TRAIN, command, without

COUNTS = st.integers(1, 8)


@given(COUNTS, COUNTS, st.integers(1, 64))
def test_the_windows_of_a_step_stay_the_same_when_processes_are_added(processes, accumulated, share):
    total = processes * accumulated * share
    step = {"processes": processes, "accumulated": accumulated, "learning_rate": 1e-4}
    assert Scale(batch_size=total, **step).shared().global_batch == total
    if processes * accumulated > 1:
        with pytest.raises(ScalingError, match="is not divisible"):
            Scale(batch_size=total + 1, **step).shared()


@given(COUNTS, COUNTS, st.integers(1, 200))
def test_the_learning_rate_grows_with_the_batch_or_its_root(processes, accumulated, batch):
    scale = Scale(batch_size=batch, processes=processes, accumulated=accumulated, learning_rate=1e-4)
    rates = {rule: scale.with_rate(rule, 50).learning_rate for rule in ("none", "sqrt", "linear")}
    assert rates["none"] == 1e-4
    assert rates["linear"] == pytest.approx(1e-4 * batch * processes * accumulated / 50)
    assert rates["sqrt"] ** 2 == pytest.approx(rates["none"] * rates["linear"])


@pytest.mark.minutes
def test_two_processes_by_rule_train_like_one_with_that_batch_and_rate(tmp_path):
    common = without(QUICK_TRAIN, "trainer", "data.batch_size", "stage.max_epochs")
    common += ["stage.max_epochs=1", "scaling.reference_batch=10"]
    by_rule = ["trainer=ddp_cpu", "scaling.batch=global", "scaling.rate=sqrt", "stage.learning_rate=1e-3"]
    plain = ["trainer=cpu", "stage.learning_rate=2e-3"]
    found = []
    for name, choices in (("two", by_rule), ("one", plain)):
        command("train.py", *common, *choices, "data.batch_size=40", f"run_dir={name}", cwd=tmp_path)
        found.append(load_file(tmp_path / name / "checkpoints" / "best_model" / "model.safetensors"))
    scale = json.loads((tmp_path / "two" / "run_info.json").read_text())["scale"]
    assert scale == {"batch_size": 20, "processes": 2, "accumulated": 1, "learning_rate": 2e-3, "global_batch": 40}
    for key, weight in found[0].items():
        torch.testing.assert_close(weight, found[1][key], atol=1e-4, rtol=0)
