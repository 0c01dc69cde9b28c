"""Run of a sweep: trials in sequence or in parallel, robust to failed trials and interruptions.

A failed trial is a row of the table. Ctrl-C and SIGTERM end the sweep; the same command with ``resume=auto`` resumes
it: finished trials are kept, and the interrupted trial resumes from its checkpoint.
"""

import gc
import itertools
import logging
import math
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict, read_write

from kronos_lightning.config.hydra_files import hide_secrets
from kronos_lightning.config.resolvers import register_resolvers
from kronos_lightning.errors import KronosError
from kronos_lightning.settings.text import shown
from kronos_lightning.storage import Lock
from kronos_lightning.sweeps import report
from kronos_lightning.sweeps import results as sweep_results
from kronos_lightning.sweeps.results import RECORD, Record, Trial
from kronos_lightning.sweeps.search import Bayesian, Space, SweepError, TrialSearch, draws, grid

INTERRUPTED = 128 + signal.SIGINT  # exit code
EXTRAS = {"hydra_joblib_launcher": "joblib", "hydra_submitit_launcher": "submitit"}

log = logging.getLogger(__name__)
hide_secrets()  # in the processes of launchers too, which write such files before they begin a trial


@dataclass(frozen=True)
class Failure:
    """Return value of a failed trial; it is picklable, because it travels between processes."""

    reason: str


class Guarded:
    """Function of a trial that returns its errors: only an interruption ends it, and the sweep with it."""

    def __init__(self, task: Callable[[DictConfig], float]):
        self.task = task

    def __call__(self, cfg: DictConfig) -> float | Failure:
        """Run the trial; return its value or a `Failure`."""
        register_resolvers()  # needed by launchers whose processes do not import train.py
        if multiprocessing.get_start_method() == "loky":  # joblib's method, unknown to processes spawned for DDP
            multiprocessing.set_start_method("spawn", force=True)
        try:
            value = self.task(cfg)
            return value if math.isfinite(value) else Failure(f"{cfg.callbacks.best.monitor} is {value}")
        except SystemExit as stop:
            cause = stop.__cause__ or stop.__context__
            if _is_interruption(stop.code) or isinstance(cause, KeyboardInterrupt):
                raise
            return Failure(_reason(cause or stop))
        except Exception as error:
            if _is_interruption(getattr(error, "exit_code", None)):  # raised by a process that DDP spawned
                sys.exit(error.exit_code)
            log.exception("The trial failed")
            return Failure(_reason(error))
        finally:
            gc.collect()  # free the memory for the next trial, even after an out-of-memory error
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()


def run_sweep(sweeper: Any, arguments: list[str]) -> None:
    """Run the trials; leave a table, a plot and the best command.

    Exits with code 1 if the sweep is invalid or a trial failed, 130 or 143 if it was interrupted.

    Args:
        sweeper: the plugin with Hydra's context and the settings of `conf/hydra/sweeper`.
        arguments: overrides of the command line.
    """
    with ExitStack() as stack:
        try:
            sweep = Sweep(sweeper, arguments, stack)
            stopped = sweep.run()
        except (KronosError, OSError) as error:
            sys.exit(f"error: {shown(str(error))}")
        sweep.report()
    if stopped:
        log.warning("The sweep was stopped. To continue it, run:\n%s", sweep_results.command_to_continue())
        sys.exit(stopped)
    failed = sum(trial.failed for trial in sweep.record.trials)
    if failed:
        log.error("%d of %d trials failed", failed, len(sweep.record.trials))
        sys.exit(1)


class Sweep:
    """Trials of one command; the constructor raises `SweepError` before the first trial starts.

    Args:
        sweeper: the plugin.
        arguments: overrides of the command line.
        stack: keeps the lock of the sweep's folder until the end.

    Raises:
        InUseError: another process runs the same sweep.
    """

    def __init__(self, sweeper: Any, arguments: list[str], stack: ExitStack):
        config = sweeper.config
        self.loader = sweeper.hydra_context.config_loader
        # A trial has the same identity whether it starts or resumes.
        kept = [argument for argument in arguments if not argument.startswith("resume=")]
        self.resume = [argument for argument in arguments if argument not in kept]
        space = Space.parse(sweeper.params, kept, self.loader)
        texts = sorted(space.trial(dict.fromkeys(space.swept, "?")))
        ranges = {key: override.get_value_string() for key, override in space.swept.items()}
        identity = {"method": sweeper.method, "seed": sweeper.seed, "overrides": texts, "swept": ranges}
        folder, resume = Path(config.hydra.sweep.dir), config.resume == "auto"
        earlier = sweep_results.find_earlier(folder.parent, identity) if resume else None
        if earlier is not None:
            log.info("Continuing the sweep in %s", earlier)
            folder = earlier
            with read_write(config), open_dict(config):
                config.hydra.sweep.dir = str(folder)
        stack.enter_context(Lock(folder, ", or set another hydra.sweep.dir"))
        if earlier is None and (folder / RECORD).exists():
            raise SweepError(f"hydra.sweep.dir={folder} contains another sweep; choose another folder, or none")
        folder.mkdir(parents=True, exist_ok=True)

        self.config, self.since = config, "" if resume else datetime.now(UTC).isoformat(timespec="seconds")
        self.record = Record(folder, identity, list(space.swept))
        if "stage" in space.swept and self.record.compared and config.stage.get("frozen_tokenizer", "auto") == "auto":
            log.warning(
                "The predictors of this sweep use a tokenizer from outside the sweep, because the tokenizer's trials "
                "that differ in %s have their own folders", ", ".join(self.record.compared)
            )  # fmt: skip
        self.search = self._search(sweeper, space, folder)
        self.at_once = 1 if config.hydra.launcher._target_.endswith(f".{BasicLauncher.__name__}") else sweeper.parallel
        self.launcher = self._launcher(sweeper)
        for overrides in self.search.planned():
            self._enter(overrides)
        self.record.save()

    def run(self) -> int | None:
        """Run all trials; return the exit code of an interruption, or None after the last trial."""
        logging.getLogger(BasicLauncher.__module__).setLevel(logging.WARNING)  # it logs every override
        try:
            with _terminable():
                while asked := self.search.ask(self.at_once):
                    trials = [self._enter(overrides) for overrides in asked]
                    # A predictor needs the tokenizer trained before it, so stages do not run in parallel.
                    for _, group in itertools.groupby(trials, key=lambda trial: trial.stage):
                        self._launch(list(group))
        except KeyboardInterrupt:
            return INTERRUPTED
        except SystemExit as stop:
            return stop.code if _is_interruption(stop.code) else INTERRUPTED
        return None

    def report(self) -> None:
        """Write and print the results so far."""
        for trial in self.record.trials:
            if trial.status in ("not run", "interrupted"):
                trial.refresh(self.since)
        self.record.save()
        report.write(self.record)
        folder = self.record.folder
        log.info("Table: %s", folder / "sweep.csv")
        winners = sweep_results.best(self.record)
        if winners:
            log.info("Plot: %s", folder / "sweep.png")
        for group, trial in winners.items():
            log.info("Best %s: %s %.5g in %s. To repeat it, run:\n%s", group, trial.monitor, trial.value, trial.run_dir,
                     sweep_results.command_of(trial))  # fmt: skip

    def _search(self, sweeper: Any, space: Space, folder: Path) -> TrialSearch:
        if sweeper.method == "grid":
            return grid(space)
        if not (isinstance(sweeper.trials, int) and sweeper.trials > 0):
            raise SweepError(f"hydra.sweeper.trials: {sweeper.trials!r} must be a number above 0")
        if sweeper.method == "random":
            return draws(space, sweeper.trials, sweeper.seed)
        for key in sweep_results.APART:
            if key in space.swept:
                kind = key.rpartition(".")[2]
                raise SweepError(
                    f"hydra/sweeper=optuna: metrics of different {kind}s are not comparable; sweep a single {kind}"
                )
        return Bayesian(space, sweeper.trials, sweeper.seed, folder / "study.db", self.config.callbacks.best.mode)

    def _launcher(self, sweeper: Any) -> Launcher:
        package = self.config.hydra.launcher._target_.split(".")[1]
        try:
            return Plugins.instance().instantiate_launcher(
                hydra_context=sweeper.hydra_context, task_function=Guarded(sweeper.task_function), config=self.config
            )
        except (ImportError, RuntimeError) as error:
            if package in EXTRAS:
                raise SweepError(f"hydra/launcher needs a package: pip install -e '.[{EXTRAS[package]}]'") from error
            raise

    def _enter(self, overrides: list[str]) -> Trial:
        """Return the trial with these overrides; a new trial is composed once to find its folder."""
        known = {tuple(trial.overrides): trial for trial in self.record.trials}.get(tuple(overrides))
        if known is not None:
            return known
        setup_globals()
        before = HydraConfig.instance().cfg
        config = self.loader.load_sweep_config(self.config, self._job(overrides))
        HydraConfig.instance().set_config(config)
        try:
            best = config.callbacks.best
            trial = Trial(overrides, config.stage.name, str(config.run_dir), best.monitor, best.mode)
        finally:
            HydraConfig.instance().cfg = before
        if any(other.run_dir == trial.run_dir for other in self.record.trials):
            raise SweepError(f"two trials would share the folder {trial.run_dir}: add ${{swept:}} to run_dir")
        self.record.trials.append(trial)
        return trial

    def _job(self, overrides: list[str]) -> list[str]:
        """Return the launcher's arguments: the overrides, and settings that a trial in another process cannot know."""
        folder = str(self.record.folder).replace("'", "\\'")
        keys = ",".join(f"'{key}'" for key in self.record.swept)
        return [*overrides, *self.resume, f"hydra.sweep.dir='{folder}'", f"hydra.sweeper.swept=[{keys}]"]

    def _launch(self, trials: list[Trial]) -> None:
        first = self.record.trials.index(trials[0])
        for number, trial in enumerate(trials, first):
            values = sweep_results.given(trial.overrides)
            log.info("Trial %d: %s", number, " ".join(f"{key}={values[key]}" for key in self.record.swept))
        try:
            jobs = self.launcher.launch([self._job(trial.overrides) for trial in trials], initial_job_idx=first)
            results = [_result(job) for job in jobs]
        except Exception as error:
            reason = _reason(error)
            log.error("The launcher failed: %s", reason, exc_info=bool(os.environ.get("HYDRA_FULL_ERROR")))
            results = [self._survivor(trial, reason) for trial in trials]
        for trial, result in zip(trials, results, strict=True):
            if isinstance(result, Failure):
                trial.status, trial.metrics = f"failed: {result.reason}", {}
            else:
                trial.refresh(self.since)
            self.search.tell(trial.overrides, trial.value)
        self.record.save()

    def _survivor(self, trial: Trial, reason: str) -> Failure | None:
        """Return None if the trial finished although a process of the launcher died, else a `Failure`."""
        trial.refresh(self.since)
        return None if trial.status == "finished" else Failure(reason)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM between two trials end the sweep like Ctrl-C; within a trial the trial handles the signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_interruption(code: object) -> bool:
    """Return True if an exit code means that a signal ended the process."""
    return isinstance(code, int) and code > 128


def _result(job: JobReturn) -> float | Failure:
    if job.status == JobStatus.COMPLETED:
        return job.return_value
    return Failure(_reason(job._return_value))


def _reason(error: BaseException) -> str:
    """Return the last line of an error's message, which in a traceback from another process is the error itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    text = lines[-1] if len(lines) > 1 or (name.endswith("Error") and lines) else ": ".join([name, *lines])
    return re.sub(r"^kronos_lightning[.\w]+: ", "", shown(text))  # omit the class name of this project's errors
