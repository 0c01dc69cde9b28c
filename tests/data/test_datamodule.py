"""Splits, processed files and loaders."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kronos_lightning.data import CandleError, CandleWindows
from kronos_lightning.data.split_files import GrowingArray
from kronos_lightning.runs.builders import build_datamodule
from tests.helpers.candles import utc
from tests.helpers.data import SETTINGS, data_module, target_stamps


@pytest.fixture
def make(tmp_path):
    return lambda **changes: data_module(**{"processed_dir": str(tmp_path / "processed")} | changes)


def test_target_stamps_of_the_splits_never_overlap_and_lie_in_their_ranges(make):
    module = make()
    module.prepare_data()
    module.setup()
    stamps = {split: target_stamps(module, split) for split in ("train", "val", "test")}
    assert max(stamps["train"]) < min(stamps["val"])
    assert max(stamps["val"]) < min(stamps["test"])
    assert max(stamps["train"]) == utc("2023-01-12 23:00")  # an end date means the whole day
    assert min(stamps["val"]) == utc("2023-01-13")
    assert min(stamps["test"]) == utc("2023-01-17")


def test_windows_dropped_for_an_earlier_split_are_counted_in_log_and_manifest(make, caplog):
    module = make()
    with caplog.at_level("INFO"):
        module.prepare_data()
    dropped = module.manifest()["windows"]["val"]["dropped_for_earlier_split"]
    assert dropped == 3 * 24  # 10th to 12th January belong to train
    assert f"val: {dropped} window(s) dropped: their targets lie in an earlier split" in caplog.text


def test_no_window_crosses_a_gap(make, guide_csv):
    lines = guide_csv.read_text().splitlines()
    guide_csv.write_text("\n".join(lines[:150] + lines[155:]))
    module = make(csv_path=str(guide_csv), synthetic=None)
    module.prepare_data()
    module.setup("fit")
    frame = pd.read_parquet(module.path("train"))
    width = 20 + module.target_rows
    for start in module.windows["train"].starts.tolist():
        stamps = frame["timestamps"].iloc[start : start + width]
        assert (stamps.diff().dropna() == pd.Timedelta("1h")).all()
    assert len(module.manifest()["markets"]["X"]["gaps"]) == 1


def test_processed_files_are_reused_when_nothing_changed_and_rebuilt_otherwise(make, guide_csv, caplog):
    def prepare(**changes):
        module = make(csv_path=str(guide_csv), synthetic=None, **changes)
        caplog.clear()
        with caplog.at_level("INFO"):
            module.prepare_data()
        return "Reusing" in caplog.text

    assert not prepare()
    assert prepare()
    assert prepare(batch_size=7)  # does not touch the files
    assert not prepare(lookback=21)
    assert prepare()  # the other settings have a folder of their own
    guide_csv.write_text(guide_csv.read_text().replace("\n", "\n", 1) + "\n")
    assert not prepare()
    make(csv_path=str(guide_csv), synthetic=None).path("val").write_bytes(b"cut")
    assert not prepare()


def test_windows_are_cut_from_mapped_files_that_no_process_changes(make):
    """Processes of a machine share the pages of a mapped file, as long as nobody writes to them."""
    module = make()
    module.prepare_data()
    before = [path.read_bytes() for path in module.files.array_paths("val")]
    module.setup("fit")
    mapped = Path("/proc/self/maps").read_text()
    assert all(str(path) in mapped for path in module.files.array_paths("val"))
    batch, frame = module.windows["val"].__getitems__([5]), pd.read_parquet(module.path("val"))
    expected = CandleWindows(frame, 20, module.target_rows, 5.0).__getitems__([5])
    parts = ((got.x, got.stamp, *got.scale) for got in (batch, expected))
    assert all(torch.equal(one, other) for one, other in zip(*parts, strict=True))
    batch.x.zero_()
    batch.stamp.zero_()
    assert [path.read_bytes() for path in module.files.array_paths("val")] == before


def test_an_interrupted_preparation_is_not_taken_for_data(make, monkeypatch):
    module = make()
    module.prepare_data()
    changed = make(lookback=25)
    monkeypatch.setattr(GrowingArray, "append", lambda *a: (_ for _ in ()).throw(OSError("No space left")))
    with pytest.raises(OSError, match="No space left"):
        changed.prepare_data()
    monkeypatch.undo()
    assert not changed.files.folder.exists()
    assert not list(changed.files.folder.parent.glob(".*kronos-tmp*"))  # no half-written folder
    again = make()
    again.prepare_data()
    again.setup()


@pytest.mark.parametrize(
    ("split", "span"),
    [
        ("train", ["2022-01-01", "2022-02-01"]),  # without candles
        ("val", ["2023-01-13 00:00", "2023-01-13 02:00"]),  # fewer candles than a target has rows
        ("test", ["2023-01-17 00:00", "2023-01-17 02:00"]),
    ],
)
def test_an_empty_split_stops_before_training(make, split, span):
    with pytest.raises(CandleError, match=f"no {split} window"):
        make(**{f"{split}_time_range": span}).prepare_data()


def test_manifest_tells_source_and_settings(make):
    module = make()
    module.prepare_data()
    manifest = json.loads((module.files.folder / "manifest.json").read_text())
    assert manifest["synthetic"] is True
    assert manifest["candles"] == 600
    assert manifest["markets"]["X"]["fingerprint"] == module.read()[0].fingerprint
    assert manifest["settings"]["train_time_range"] == SETTINGS["train_time_range"]
    assert {module.path(s).name for s in ("train", "val", "test")} == {
        f"test_{s}_data.parquet" for s in ("train", "val", "test")
    }


def test_dataset_begin_and_end_bound_the_candles(make):
    module = make(dataset_begin_time="2023-01-03", dataset_end_time="2023-01-20")
    module.prepare_data()
    stamps = module.read()[0].frame["timestamps"]
    assert stamps.iloc[0] == utc("2023-01-03")
    assert stamps.iloc[-1] == utc("2023-01-20 23:00")


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_give_whole_batches_whatever_the_workers(make, workers):
    module = make(num_workers=workers)
    module.prepare_data()
    module.setup("fit")
    train = list(module.train_dataloader())
    assert {len(batch.x) for batch in train} == {16}
    assert sum(len(batch.x) for batch in module.val_dataloader()) == len(module.windows["val"])
    reference = list(make_again(module).train_dataloader())
    np.testing.assert_array_equal(train[3].x, reference[3].x)


def make_again(module):
    again = build_datamodule(module.config.model_copy(update={"num_workers": 0}))
    again.prepare_data()
    again.setup("fit")
    return again


def test_samples_per_epoch_bounds_an_epoch(make):
    module = make(samples_per_epoch=48)
    module.prepare_data()
    module.setup("fit")
    assert len(list(module.train_dataloader())) == 3
