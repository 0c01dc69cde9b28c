"""Files of a split that are written market after market, so that never more than one market is in memory."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kronos_lightning.data.windows import WindowArrays


class SplitFiles:
    """Parquet file and `WindowArrays` of a split, which grow by one market at a time.

    Segments of two markets stay distinct, so that no window spans both.

    Args:
        frame_path: path of the Parquet file.
        array_paths: paths of the arrays.
        lookback, target_rows: size of the windows.
    """

    def __init__(self, frame_path: Path, array_paths: list[Path], lookback: int, target_rows: int):
        self.frame_path, self.lookback, self.target_rows = frame_path, lookback, target_rows
        self.arrays = [GrowingArray(path) for path in array_paths]
        self.rows = self.segments = 0
        self._parquet: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in (*self.arrays, *([] if self._parquet is None else [self._parquet])):
            file.close()

    def append(self, frame: pd.DataFrame) -> None:
        """Append a market's candle frame with a bool column `target`."""
        segment = frame["segment"].to_numpy()
        segment = (segment - (segment[0] if len(segment) else 0) + self.segments).astype(np.int64)
        frame = frame.assign(segment=segment)
        table = pa.Table.from_pandas(frame, preserve_index=False)
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self.frame_path, table.schema)
        self._parquet.write_table(table)
        arrays = WindowArrays.of(frame, self.lookback, self.target_rows)
        arrays = arrays._replace(starts=arrays.starts + self.rows)
        for file, array in zip(self.arrays, arrays, strict=True):
            file.append(array)
        self.rows += len(frame)
        self.segments = int(segment[-1]) + 1 if len(segment) else self.segments


class GrowingArray:
    """File in numpy's format whose array grows along its first axis; complete after `close`."""

    def __init__(self, path: Path):
        self._file, self._length, self._last = path.open("wb"), 0, np.empty(0)

    def append(self, array: np.ndarray) -> None:
        """Append rows; all calls have one type and one shape of a row."""
        if self._file.tell() == 0:
            self._last = array[:0]
            self._write_header()
        self._file.write(np.ascontiguousarray(array).data)
        self._length += len(array)

    def close(self) -> None:
        """Write the final length and close the file."""
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        # Numpy leaves room in the header for a longer first axis, so that it can be replaced.
        shape = (self._length, *self._last.shape[1:])
        descr = np.lib.format.dtype_to_descr(self._last.dtype)
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, {"descr": descr, "fortran_order": False, "shape": shape})
