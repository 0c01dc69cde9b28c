"""Files of a split that are written market after market."""

import numpy as np
import pandas as pd
import pytest

from kronos_lightning.data.split_files import GrowingArray, SplitFiles
from kronos_lightning.data.windows import WindowArrays
from tests.helpers.candles import frame_with_gap


def test_markets_written_one_after_the_other_are_the_windows_of_all_together(tmp_path):
    frames = [frame_with_gap(60, 30), frame_with_gap(60, 30)[:0], frame_with_gap(50, 20)[25:], frame_with_gap(40, 40)]
    paths = [tmp_path / f"{name}.npy" for name in WindowArrays._fields]
    with SplitFiles(tmp_path / "candles.parquet", paths, 8, 3) as files:
        for frame in frames:
            files.append(frame)
    stored = pd.read_parquet(tmp_path / "candles.parquet")
    columns = [name for name in stored if name != "segment"]
    pd.testing.assert_frame_equal(stored[columns], pd.concat(frames, ignore_index=True)[columns])
    assert stored.groupby("segment").size().tolist() == [30, 30, 25, 40]
    for path, expected in zip(paths, WindowArrays.of(stored, 8, 3), strict=True):
        found = np.load(path, mmap_mode="c")
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rows", [[3], [1] * 12, [0, 2, 0]])
def test_an_array_grows_by_rows(tmp_path, rows):
    parts = [np.arange(2 * n, dtype=np.float32).reshape(n, 2) + i for i, n in enumerate(rows)]
    file = GrowingArray(tmp_path / "array.npy")
    for part in parts:
        file.append(part)
    file.close()
    np.testing.assert_array_equal(np.load(tmp_path / "array.npy"), np.concatenate(parts))
