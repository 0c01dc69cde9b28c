"""Forecaster that turns candles into sample paths of future candles.

Shape letters: N series, S sample paths, T known candles, h horizon, C = 6 features, Q quantile levels.
"""

import copy
import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kronos_lightning.data.formats import CLOSE, FEATURES, PRICES, CandleError
from kronos_lightning.data.representation import LEVELS, AnyRepresentation, Levels, WindowScale, read_representation
from kronos_lightning.forecast.calibration import Calibration, Window
from kronos_lightning.forecast.decoding import (
    FusedPredictor,
    FusedTokenizer,
    decode_last,
    decode_tokens,
    generate_tokens,
    tail,
)
from kronos_lightning.forecast.device import best_device, working_memory
from kronos_lightning.forecast.distribution import check_levels, quantile_table, quantiles, repair
from kronos_lightning.forecast.folding import FoldCache, weight_versions
from kronos_lightning.forecast.fused import activation_dtype, transformer_blocks
from kronos_lightning.forecast.sampling import Generators, Sampling, draw_uniforms, series_generators
from kronos_lightning.forecast.series import Series, Stamps, read_series, rows_by_id
from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.model.pretrained import CheckpointError, trained_representation, trained_with_volume

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PRICED = len(PRICES)


@dataclass
class Forecaster:
    """Forecaster with a tokenizer and a predictor that belong together, and the settings of sampling.

    Weights are folded for forecasting at the first call, on the predictor's device, and again when they have changed
    (by training or loading; writing to ``parameter.data`` goes unnoticed). Dropout is always off. Forecasting does not
    change the networks, and threads may share a forecaster.

    max_context: maximum number of candles that the predictor sees; earlier candles are cut off before normalisation.
    clip: bound of the normalised values, as in training.
    sampling: rules for drawing tokens.
    rotary_fine_token: True decodes the fine token with the rotary positions of training, False without positions like
        the published code.
    dtype: of the predictor: float32, bfloat16, float16; int8 for 8-bit weights in the steps of a single path on a CPU.
    anchor: True shifts the paths by the difference between the last known candle and its reconstruction, so that
        the decoded changes start at the real last candle.
    repair: repair impossible candles; see `distribution.repair`.
    compile: fuse the predictor's small operations with torch.compile; slower on CPUs.
    calibration: calibration from an evaluation, applied to the paths; its sampling applies only with
        `with_calibration`.
    volume: True if volume and amount are known; set False for a predictor trained without them, and they are zero.
    representation: of the candles for the networks, as in their training. Returns need no anchor.

    Raises:
        CheckpointError: tokenizer and predictor have different code lengths.
    """

    tokenizer: KronosTokenizer
    predictor: Kronos
    _: KW_ONLY
    max_context: int = 512
    clip: float = 5.0
    sampling: Sampling = field(default_factory=Sampling)
    rotary_fine_token: bool = False
    dtype: torch.dtype = torch.float32
    anchor: bool = False
    repair: bool = False
    compile: bool = False
    calibration: Calibration | None = None
    volume: bool = True
    representation: AnyRepresentation = LEVELS
    _folded: FoldCache[tuple[FusedTokenizer, FusedPredictor]] = field(
        default_factory=FoldCache, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        theirs, ours = ((network.s1_bits, network.s2_bits) for network in (self.tokenizer, self.predictor))
        if theirs != ours:
            raise CheckpointError(
                f"tokenizer with {theirs} bits and predictor with {ours} bits do not belong together; use the "
                "tokenizer that the predictor was trained with"
            )

    @classmethod
    def from_pretrained(
        cls,
        tokenizer: str | os.PathLike[str],
        predictor: str | os.PathLike[str],
        *,
        tokenizer_revision: str | None = None,
        predictor_revision: str | None = None,
        device: str = "auto",
        calibrated: bool = False,
        **options: Any,
    ) -> Self:
        """Load a tokenizer and a predictor that belong together.

        Args:
            tokenizer, predictor: local directories or Hub names.
            tokenizer_revision, predictor_revision: commit, tag or branch on the Hub.
            device: auto, cpu, cuda, cuda:1, mps.
            calibrated: use the predictor's `calibration.json`, which an evaluation wrote, including its sampling.
            options: other fields of this class. `max_context` is 512 by default; Kronos-mini uses 2048. `volume` and
                `representation` are by default as recorded in the predictor's directory.

        Raises:
            CheckpointError: a checkpoint cannot be found or does not fit, or the code lengths differ.
            CalibrationError: `calibrated` is set, but there is no valid calibration.
        """
        trained = read_representation(trained_representation(Path(predictor)), str(predictor))
        options = {"volume": trained_with_volume(Path(predictor)) is not False, "representation": trained} | options
        place = best_device(device)
        forecaster = cls(
            KronosTokenizer.from_pretrained(tokenizer, revision=tokenizer_revision).to(place),
            Kronos.from_pretrained(predictor, revision=predictor_revision).to(place),
            **options,
        )
        return forecaster.with_calibration(Calibration.of(Path(predictor))) if calibrated else forecaster

    def with_calibration(self, calibration: Calibration) -> Self:
        """Return the same forecaster with the sampling and the corrections of a calibration."""
        sampling = Sampling(temperature=calibration.temperature, top_k=self.sampling.top_k, top_p=calibration.top_p)
        return replace(self, sampling=sampling, calibration=calibration)

    def with_sampling(self, sampling: Sampling) -> Self:
        """Return the same forecaster with another sampling; both share the folded networks."""
        other = copy.copy(self)
        other.sampling = sampling
        return other

    def to(self, device: torch.device | str) -> Self:
        """Move both networks to a device."""
        self.tokenizer.to(device)
        self.predictor.to(device)
        return self

    def sample_paths(
        self,
        candles: pd.DataFrame | Sequence[pd.DataFrame],
        horizon: int,
        num_paths: int = 100,
        *,
        timestamp_column: str = "timestamps",
        future_timestamps: Stamps | Sequence[Stamps] | None = None,
        generator: Generators = None,
    ) -> np.ndarray:
        """Sample future candles of one or several series, in the candles' own units.

        Args:
            candles: one frame per series with open times, ``open high low close`` and optionally ``volume amount``.
                Series may differ in length, the order of rows does not matter, and the frames are not changed.
            horizon: number of future candles, h.
            num_paths: number of sample paths, S.
            timestamp_column: name of the column with the open times.
            future_timestamps: open times of the future candles (for several series, one entry per series); None
                continues at the candles' interval.
            generator: one seeded generator that the series draw from in their order, or one generator per series, or
                None for torch's global generator. With one generator per series, a seed gives the same paths whatever
                is forecast together.

        Returns:
            float32 ``(N, S, h, C)``, features in the order open high low close volume amount.

        Raises:
            CandleError: the candles or the future timestamps are invalid.
        """
        frames: Sequence[pd.DataFrame]
        future: list[Any]  # the stamps of each series
        if isinstance(candles, pd.DataFrame):
            frames, future = [candles], [future_timestamps]
        else:
            frames, future = candles, [None] * len(candles) if future_timestamps is None else list(future_timestamps)
        if len(future) != len(frames):
            raise CandleError(f"future timestamps of {len(future)} series for {len(frames)} series")
        series = [
            read_series(frame, horizon, timestamp_column, stamps, "candles" if len(frames) == 1 else f"series {i}")
            for i, (frame, stamps) in enumerate(zip(frames, future, strict=True))
        ]
        return self.sample_series(series, num_paths, generator)

    def predict_quantiles(
        self,
        candles: pd.DataFrame | Sequence[pd.DataFrame],
        horizon: int,
        quantile_levels: Sequence[float] = DECILES,
        num_paths: int = 100,
        **options: Any,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return quantiles ``(N, h, C, Q)`` and means ``(N, h, C)`` of sample paths; `options` as in `sample_paths`."""
        check_levels(quantile_levels)
        paths = self.sample_paths(candles, horizon, num_paths, **options)
        return quantiles(paths, quantile_levels), paths.mean(axis=1, dtype=np.float64)

    def predict_df(
        self,
        df: pd.DataFrame,
        prediction_length: int,
        quantile_levels: Sequence[float] = DECILES,
        id_column: str | None = "item_id",
        timestamp_column: str = "timestamp",
        *,
        target: str | Sequence[str] = tuple(FEATURES),
        future_df: pd.DataFrame | None = None,
        num_paths: int = 100,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Forecast the series of a long frame, in the column conventions of chronos-forecasting.

        Args:
            df: candles of one or several series.
            prediction_length: number of future candles, h.
            quantile_levels: quantile levels, each in (0, 1).
            id_column: column that names the series of a row; None for a single series.
            timestamp_column: column with the open times of the candles, UTC if they have no zone.
            target: the features to report.
            future_df: id and open times of the future candles; None continues at the candles' interval.
            num_paths: number of sample paths per series.
            seed: makes the forecast repeatable; the random numbers of a series depend only on the seed and its id.

        Returns:
            One row per series, step and feature: `id_column`, `timestamp_column`, ``target_name``, ``predictions``
            (mean of the paths) and one column per quantile level, named ``"0.1"`` and so on. Series are in the order of
            their first rows.

        Raises:
            CandleError: candles, columns or future timestamps are invalid.
            ValueError: a quantile level is not in (0, 1).
        """
        check_levels(quantile_levels)
        targets = [target] if isinstance(target, str) else list(target)
        unknown = [name for name in targets if name not in FEATURES]
        if unknown:
            raise CandleError(f"target {', '.join(unknown)}: not one of {', '.join(FEATURES)}")
        groups, future = rows_by_id(df, id_column, "df"), {}
        if future_df is not None:
            future = {
                name: rows[timestamp_column] for name, rows in rows_by_id(future_df, id_column, "future_df").items()
            }
            lacking = [name for name in groups if name not in future]
            if lacking:
                raise CandleError(f"future_df has no rows of series {lacking[0]!r}")
        series = [
            read_series(rows, prediction_length, timestamp_column, future.get(name), f"series {name!r}")
            for name, rows in groups.items()
        ]
        paths = self.sample_series(series, num_paths, None if seed is None else series_generators(seed, list(groups)))
        zone = getattr(df[timestamp_column].dtype, "tz", None)  # stamps are returned in the time zone of the input
        parts = []
        for name, one, own in zip(groups, series, paths, strict=True):
            table = quantile_table(own, one.future.tz_convert(zone), quantile_levels, targets, timestamp_column)
            if id_column is not None:
                table.insert(0, id_column, name)
            parts.append(table)
        return pd.concat(parts, ignore_index=True)

    def sample_series(self, series: Sequence[Series], num_paths: int, generator: Generators = None) -> np.ndarray:
        """Sample future candles of checked series that share a horizon; see `sample_paths`."""
        if not series:
            raise CandleError("no series to forecast")
        series = [one.last(self.max_context) for one in series]
        lengths = torch.tensor([len(one.values) for one in series])
        shape = len(series), int(lengths.max())
        x, stamp = torch.zeros(*shape, len(FEATURES)), torch.zeros(*shape, 5, dtype=torch.int8)
        future_stamp = torch.empty(len(series), len(series[0].future), 5, dtype=torch.int8)
        scales: list[WindowScale] = []
        windows: list[Window] = []
        for i, (one, length) in enumerate(zip(series, lengths.tolist(), strict=True)):
            past, future = (torch.from_numpy(part) for part in one.features())
            stamp[i, :length], future_stamp[i] = past, future
            windows.append((torch.tensor(one.values)[None], torch.cat([past, future])[None]))
            x[i : i + 1, :length], scale = self._normalised(*windows[i])
            scales.append(scale)
        scale = WindowScale(*(torch.cat(parts) for parts in zip(*scales, strict=True)))
        paths = self.sample_normalised(x, stamp, future_stamp, num_paths, generator, lengths).cpu()
        return self._in_units(paths, scale, np.array([one.last_close for one in series]), windows).numpy()

    def sample_windows(
        self, candles: Tensor, stamp: Tensor, future_stamp: Tensor, num_paths: int, generator: Generators = None
    ) -> Tensor:
        """Sample the candles after windows of equal length, in the candles' own units.

        Args:
            candles: known candles, float ``(N, T, C)``; not changed.
            stamp, future_stamp: time features of known ``(N, T, 5)`` and future ``(N, h, 5)`` candles.
            num_paths: number of sample paths, S.
            generator: see `sample_paths`.

        Returns:
            ``(N, S, h, C)``.
        """
        candles, stamp = candles[:, -self.max_context :], stamp[:, -self.max_context :]
        window = candles, torch.cat([stamp, future_stamp], dim=1)
        x, scale = self._normalised(*window)
        paths = self.sample_normalised(x, stamp, future_stamp, num_paths, generator)
        return self._in_units(paths, scale, candles[:, -1, CLOSE].double().cpu().numpy(), [window])

    def sample_normalised(
        self,
        x: Tensor,
        stamp: Tensor,
        future_stamp: Tensor,
        num_paths: int,
        generator: Generators = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Sample normalised paths ``(N, S, h, C)`` after normalised candles.

        Args:
            x: normalised candles ``(N, T, C)``, shorter series padded at the end; the tokenizer sees all candles, the
                predictor the last `max_context`.
            stamp, future_stamp, num_paths, generator: as in `sample_windows`.
            lengths: number of candles of each series, ``(N,)``; None if all series have T candles.
        """
        n, longest = x.shape[:2]
        device = next(self.predictor.parameters()).device
        uniforms = draw_uniforms(generator, n, num_paths, future_stamp.size(1)).to(device)
        lengths = torch.full((n,), longest) if lengths is None else lengths
        x, stamp, future_stamp, lengths = (part.to(device) for part in (x, stamp, future_stamp, lengths))
        together, paths_together = self._fitting(longest, future_stamp.size(1), num_paths)
        groups = []
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            for series in torch.split(torch.arange(n, device=device), together):
                longest = int(lengths[series].max())
                known, known_stamp = x[series, :longest].float(), stamp[series, :longest]
                parts = [
                    self._sample_group(known, known_stamp, future_stamp[series], lengths[series], part)
                    for part in torch.split(uniforms[series], paths_together, dim=1)
                ]
                groups.append(torch.cat(parts, dim=1))
        return torch.cat(groups).clone()  # outside of inference mode, so that the result is a normal tensor

    def _sample_group(
        self, x: Tensor, stamp: Tensor, future_stamp: Tensor, lengths: Tensor, uniforms: Tensor
    ) -> Tensor:
        tokenizer, predictor = self._fold()
        kept = lengths.clamp(max=self.max_context)
        coarse, fine, stamp = (tail(part, lengths, kept) for part in (*tokenizer.encode(x), stamp))
        ids = coarse, fine
        own = generate_tokens(predictor, ids, kept, stamp, future_stamp, self.sampling, uniforms, self.max_context)
        paths = decode_tokens(tokenizer, ids, kept, own, self.max_context)
        if self.anchor and isinstance(self.representation, Levels):
            last = x[torch.arange(len(x), device=x.device), lengths - 1]
            paths += (last - decode_last(tokenizer, ids, kept, self.max_context))[:, None, None]
        return paths

    def _fold(self) -> tuple[FusedTokenizer, FusedPredictor]:
        """Return the networks folded for forecasting, from their current weights."""
        device = next(self.predictor.parameters()).device
        options = device, self.dtype, self.rotary_fine_token, self.compile
        state = options, weight_versions(self.tokenizer), weight_versions(self.predictor)
        return self._folded.get(
            state, lambda: (FusedTokenizer(self.tokenizer, device), FusedPredictor(self.predictor, *options))
        )

    def _fitting(self, known: int, horizon: int, num_paths: int) -> tuple[int, int]:
        """Return the numbers of series and of paths per series that fit into the working memory; others form groups."""
        width, layers = self.predictor.dep_layer.norm.weight.numel(), len(self.predictor.transformer) + 1
        cached = 2 * layers * width * activation_dtype(self.dtype).itemsize
        blocks, decoder = transformer_blocks(self.predictor.transformer), transformer_blocks(self.tokenizer.decoder)
        passing = 4 * (7 * width + 2 * max((block.ffn.w1.out_features for block in blocks), default=0))
        scores = 4 * 3 * max(decoder[0].self_attn.n_heads if decoder else 1, 1)
        series = known * (cached + passing)
        path = horizon * (cached + passing + scores * (min(known, self.max_context) + horizon))
        memory = working_memory(next(self.predictor.parameters()).device)
        together = max(1, memory // (series + num_paths * path))
        return together, min(num_paths, max(1, (memory - series) // path))

    def _seen(self, candles: Tensor) -> Tensor:
        """Return candles ``(…, C)``, with volume and amount set to zero if they are not known."""
        if self.volume:
            return candles
        return torch.cat([candles[..., :PRICED], torch.zeros_like(candles[..., PRICED:])], dim=-1)

    def _normalised(self, candles: Tensor, stamps: Tensor) -> tuple[Tensor, WindowScale]:
        """Normalise known candles ``(N, T, C)``; return them and the scale of the candles to come."""
        x, scale = self.representation.normalise(self._seen(candles), candles.size(1), self.clip, stamps)
        return x, scale.after(candles.size(1))

    def _in_units(self, paths: Tensor, scale: WindowScale, last_close: np.ndarray, windows: Sequence[Window]) -> Tensor:
        """Convert normalised paths after windows into candles, and correct them."""
        scale = WindowScale(*(part.to(paths.device) for part in scale))
        paths = self._seen(self.representation.denormalise(paths, scale, self.clip))
        if not self.repair and self.calibration is None:
            return paths
        candles = paths.cpu().numpy()
        candles = repair(candles) if self.repair else candles
        if self.calibration is not None:
            candles = self.calibration.apply(candles, last_close, self.calibration.expected_deviations(windows))
        return torch.from_numpy(candles).to(paths.device)
