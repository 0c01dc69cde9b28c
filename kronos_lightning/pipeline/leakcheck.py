"""Proof that nothing looks ahead: real evaluations of candle files whose later candles were changed.

The candles of a test range are written to a file, once as they are, once changed from every cutoff of a choice on, and
once changed throughout. Each file is evaluated end to end in a process of its own, and every figure that was known at
the cutoff has to be the same bit by bit. What no evaluation shows, the networks' training windows and the records of
files and checkpoints, is checked on its own.
"""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from kronos_lightning.config.schema import Evaluation
from kronos_lightning.config.validation import check_evaluation
from kronos_lightning.data import CandleDataModule, Candles
from kronos_lightning.data.datamodule import SPLITS
from kronos_lightning.data.formats import FEATURES, LayoutSection
from kronos_lightning.data.windows import window_starts
from kronos_lightning.evaluation.calibration import MIN_CALIBRATION_CUTOFFS
from kronos_lightning.evaluation.leakcheck import subjects
from kronos_lightning.evaluation.leakcheck.figures import Figures, Mutation, judge
from kronos_lightning.evaluation.leakcheck.proof import ALL, FUTURES, ProofResult, mutate, prove
from kronos_lightning.evaluation.leakcheck.splits import check_record, check_splits
from kronos_lightning.runs.builders import build_datamodule
from kronos_lightning.runs.checkpoint_lookup import Sources, find_compared_forecaster, find_forecaster
from kronos_lightning.runs.provenance import describe, trained_until
from kronos_lightning.settings import end_of

from .notices import PRETRAINING_END

CUTOFFS = 32  # maximum number of cutoffs of an evaluation in the proof
PLACES = 9  # cutoffs after which the candles are changed, each in an evaluation of its own
PATHS = 5  # maximum number of sample paths per cutoff
SEARCHED = 6  # cutoffs for the search of temperature and top-p

Run = Callable[[DictConfig], Figures]  # an evaluation in a process of its own

log = logging.getLogger("leakcheck")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Findings on one test range.

    label: of the data.
    cutoffs: open times of the last candles that were not changed.
    findings: one per subject.
    metadata: versions, revision, fingerprints of the candles, settings, checkpoints.
    """

    label: str
    cutoffs: list[str]
    findings: list[ProofResult]
    metadata: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the content for the JSON file, in which the key of the metadata is "about"."""
        content = asdict(self)
        return content | {"about": content.pop("metadata")}

    def named(self, verdict: str) -> list[ProofResult]:
        """Return the findings with a verdict."""
        return [finding for finding in self.findings if finding.verdict == verdict]


def certify(cfg: DictConfig, run: Run, places: int = PLACES) -> Certificate:
    """Check everything that can be proved on one test range.

    Args:
        cfg: configuration of evaluate.py, for one fold.
        run: evaluates a configuration from its candle file on, without anything in memory from an earlier evaluation.
        places: number of cutoffs after which the candles are changed.

    Raises:
        KronosError: the evaluation itself is impossible.
    """
    settings = check_evaluation(cfg)
    datamodule = build_datamodule(settings.data)
    datamodule.prepare_data()
    (candles,), (forecaster, sources) = datamodule.read(), find_forecaster(settings, datamodule)
    with tempfile.TemporaryDirectory(prefix="leakcheck_") as folder:
        door = _Door(cfg, datamodule, candles, sources, run, Path(folder))
        original = door.evaluate(candles)
        rows = chosen_rows(candles, original, places)
        log.info("Proof: %d evaluations with changed candles, each from the file to the equity", len(rows) + 1)
        mutated = {door.mutation(i, row): door.evaluate(door.changed(i, row)) for i, row in enumerate(rows)}
        findings = judge(original, mutated, door.evaluate(mutate(candles, ALL, FUTURES[0], settings.seed)))
        if any(one.verdict == "leak" for one in findings) and not same(original, door.evaluate(candles)):
            reason = "two evaluations of the same candles already differ, so that nothing can be concluded"
            findings = [ProofResult.unproved(one.name, one.what, reason) for one in findings]
    data = settings.data
    networks = [
        subjects.training_windows(forecaster, data.lookback, data.horizon),
        subjects.tokens(forecaster, data.lookback, data.horizon),
        subjects.logits(forecaster, data.lookback, data.horizon),
    ]
    findings += prove(networks, candles, rows, settings.seed)
    findings = records(settings, datamodule, candles, sources) + findings
    status = "leak" if any(one.verdict == "leak" for one in findings) else "no leak found"
    metadata = describe(datamodule, settings.seed, status=status, settings=settings.model_dump(mode="json"))
    metadata |= {"sources": asdict(sources)}
    times = [f"{pd.Timestamp(candles.times[row]):%Y-%m-%d %H:%M}" for row in rows]
    return Certificate(label=data.label, cutoffs=times, findings=findings, metadata=metadata)


def same(original: Figures, repeated: Figures) -> bool:
    """Return True if two evaluations of the same candles gave the same figures."""
    end = Mutation(
        cutoff=np.datetime64("2262-01-01"), following=np.datetime64("2262-01-01"), future="", keeps_open=True
    )
    return not any(one.verdict == "leak" for one in judge(original, {end: repeated}, repeated))


def chosen_rows(candles: Candles, original: Figures, places: int) -> list[int]:
    """Choose the rows after which candles are changed: some cutoffs, and some after which a position is opened.

    The first cutoff is always among them: nothing that was settled before the test may change with it.
    """
    cutoffs = original["sampled/paths"].known
    opened = [figure.known for name, figure in original.items() if name.endswith("entry price")]
    before = candles.times[candles.rows_at(np.unique(np.concatenate(opened))) - 1]
    before = before[(before >= cutoffs[0]) & (before <= cutoffs[-1])]
    few = places - min(places // 2, len(before))
    times = np.concatenate([_spread(cutoffs, few), _spread(before, places - few)])
    return [int(row) for row in np.unique(candles.rows_at(times))]


def _spread(times: np.ndarray, count: int) -> np.ndarray:
    return times[np.unique(np.linspace(0, max(len(times) - 1, 0), count).astype(int))] if len(times) else times


class _Door:
    """Evaluations of changed candles as they would come in: from a file, with the settings of the user.

    They differ from the user's own evaluation in size alone: the first cutoffs of the test range, close enough for
    their outcomes to overlap, with few paths, and a calibration on few cutoffs.
    """

    def __init__(
        self,
        cfg: DictConfig,
        datamodule: CandleDataModule,
        candles: Candles,
        sources: Sources,
        run: Run,
        folder: Path,
    ):
        self.cfg, self.candles, self.run, self.folder, self.count = cfg, candles, run, folder, 0
        settings = check_evaluation(cfg)
        self.seed = settings.seed
        self.changes = small(settings, datamodule, candles) | pinned(settings, sources)

    def mutation(self, i: int, row: int) -> Mutation:
        """Describe the i-th change; every second one keeps the open of the next candle, at which orders are filled."""
        times = self.candles.times
        return Mutation(
            cutoff=times[row], following=times[row + 1], future=FUTURES[i % len(FUTURES)].name, keeps_open=i % 2 == 1
        )

    def changed(self, i: int, row: int) -> Candles:
        """Return the candles with the i-th change."""
        return mutate(self.candles, row, FUTURES[i % len(FUTURES)], self.seed, keep_open=i % 2 == 1)

    def evaluate(self, candles: Candles) -> Figures:
        """Write the candles to a file and evaluate it."""
        self.count += 1
        path = self.folder / str(self.count) / f"{candles.symbol.replace('/', '_')}.parquet"
        path.parent.mkdir()
        candles.frame[["timestamps", *FEATURES]].to_parquet(path, index=False)
        cfg = self.cfg.copy()
        places = {"data.csv_path": str(path), "data.processed_dir": str(path.parent / "processed")}
        for key, value in (self.changes | places | {"evaluation.output_dir": str(path.parent / "report")}).items():
            OmegaConf.update(cfg, key, value, force_add=True)
        log.info("Evaluation %d", self.count)
        return self.run(cfg)


def small(settings: Evaluation, datamodule: CandleDataModule, candles: Candles) -> dict[str, Any]:
    """Return the settings of a small evaluation of a candle file, by key."""
    data, stamps = settings.data, candles.frame["timestamps"]
    mask = datamodule.target_masks(stamps)["test"]
    starts = window_starts(candles.frame["segment"].to_numpy(), mask, data.lookback, data.horizon)
    most = settings.evaluation.max_cutoffs or len(starts)
    stride = max(1, min(-(-len(starts) // most), data.horizon // 2))
    count = min(CUTOFFS, most, -(-len(starts) // stride))
    last = starts[min(len(starts), count * stride) - 1] + data.lookback + data.horizon - 1
    ranges = {f"data.{split}_time_range": list(datamodule.ranges[split]) for split in SPLITS}
    ranges["data.test_time_range"][1] = f"{stamps.iloc[last]:%Y-%m-%d %H:%M:%S}"
    dates = {"data.fold": None, "data.dataset_begin_time": None, "data.dataset_end_time": None}
    fitted = min(settings.calibration.max_cutoffs or MIN_CALIBRATION_CUTOFFS, MIN_CALIBRATION_CUTOFFS)
    known = len(
        window_starts(
            candles.frame["segment"].to_numpy(), datamodule.target_masks(stamps)["val"], data.lookback, data.horizon
        )
    )
    if fitted == MIN_CALIBRATION_CUTOFFS:  # at equal distance, and enough to calibrate
        fitted = -(-known // max(1, known // MIN_CALIBRATION_CUTOFFS))
    return {
        **ranges,
        **dates,
        **dict.fromkeys(f"data.{key}" for key in LayoutSection.model_fields),
        "data.on_defect": "ignore",  # a jump to other prices looks like a defect
        "evaluation.max_cutoffs": count,
        "evaluation.bootstrap_samples": 2,
        "calibration.max_cutoffs": max(1, fitted),
        "calibration.search_cutoffs": min(SEARCHED, settings.calibration.search_cutoffs),
        "forecast.num_paths": min(PATHS, settings.forecast.num_paths),
        "backtest.random_runs": 1,
        "backtest.intrabar_csv": None,  # a file that is not changed
        "trainer.devices": 1,
        "trainer.strategy": "auto",
        "trainer.enable_progress_bar": False,
    }


def pinned(settings: Evaluation, sources: Sources) -> dict[str, str]:
    """Return the folders of the networks: changed candles are not those that a run was trained on.

    With a tokenizer that was named, an evaluation does not store its calibration with the checkpoint.
    """
    if sources.directory is None:
        return {"predictor": "published"}
    kept = sources.tokenizer_directory if settings.tokenizer == "auto" else None
    return {"predictor": str(sources.directory)} | ({} if kept is None else {"tokenizer": str(kept)})


def records(
    settings: Evaluation, datamodule: CandleDataModule, candles: Candles, sources: Sources
) -> list[ProofResult]:
    """Check what files and checkpoints record: splits, training of every network, pretraining, intrabar candles."""
    files = {split: pd.read_parquet(datamodule.path(split), columns=["timestamps", "target"]) for split in SPLITS}
    first = files["test"].loc[files["test"]["target"], "timestamps"].min()
    found = check_splits(files, candles.frame["timestamps"], settings.data.embargo)
    members = dict.fromkeys(member for name in settings.compare for member in name.split("+"))
    every = {"": sources} | {
        f" of {name}": find_compared_forecaster(settings, name, sources, datamodule)[1] for name in members
    }
    for name, one in every.items():
        if one.directory is not None:
            found.append(check_record(f"predictor{name}", trained_until(one.info), first))
        if one.tokenizer_directory is not None:
            found.append(check_record(f"tokenizer{name}", trained_until(one.tokenizer_info), first))
    if not (candles.synthetic or sources.started_at_random) and first < end_of(PRETRAINING_END):
        detail = f"the test begins at {first}, the published weights may have seen candles up to {PRETRAINING_END}"
        found.append(ProofResult.unproved("pretraining", "training data of the initial weights", detail))
    if settings.backtest.intrabar_csv is not None:
        detail = "they come from a file that is not changed; the backtest was proved without them"
        found.append(ProofResult.unproved("intrabar candles", "what came first inside a candle", detail))
    return found
