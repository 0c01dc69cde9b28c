"""Experiment trackers besides TensorBoard: Comet, Weights & Biases, MLflow, and a CSV file that survives a resume.

Keys of a service are checked before the training. The first logged value opens the connection, in the first process
only. The service's id of the run is stored in ``logs/{tracker}_run.txt``: a resumed run continues under this id, and
every new run gets a new id.

Lightning's own loggers for these services do neither. Its Comet logger connects in its constructor, before the run's
folder exists, and none of them stores the id of its run. Subclasses would override everything but the logging of a
dictionary.
"""

import importlib.util
import logging
import os
import time
import uuid
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.logger import _convert_params, _flatten_dict
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from kronos_lightning.errors import KronosError

log = logging.getLogger(__name__)


class TrackerError(KronosError, RuntimeError):
    """Error if a tracker is unusable: no package, no key, or a refusal by the service; the message says what to do."""


class Tracker(Logger):
    """Base of the services: one run, started by its first logged value and ended with the training.

    Args:
        run_dir: folder of the run. Local files of a service go into its ``logs/``.
        project: project under which the service groups the runs.

    Raises:
        TrackerError: the package is not installed.
    """

    choice: str  # name in conf/logger, also the extra that installs the package
    package: str  # import name

    def __init__(self, run_dir: str, project: str):
        super().__init__()
        if importlib.util.find_spec(self.package) is None:
            raise TrackerError(
                f"logger={self.choice}: the package is not installed: pip install 'kronos-lightning[{self.choice}]'"
            )
        self.run_dir, self.project = Path(run_dir), project
        self._experiment: Any = None

    def _start(self, known: str | None) -> tuple[Any, str]:
        """Start a new run, or resume the run with id `known`; return the package's run object and the id."""
        raise NotImplementedError

    def _log(self, metrics: dict[str, float], step: int) -> None:
        raise NotImplementedError

    def _log_settings(self, settings: dict[str, Any]) -> None:
        raise NotImplementedError

    def _log_figure(self, name: str, figure: Figure, step: int) -> None:
        raise NotImplementedError

    def _end(self, succeeded: bool) -> None:
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """Folder of the tracker's local files."""
        return self.run_dir / "logs"

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Run object of the tracker's package; its first use connects to the service.

        Raises:
            TrackerError: the connection fails.
        """
        if self._experiment is None:
            note = self.folder / f"{self.choice}_run.txt"
            known = note.read_text() if note.is_file() else None
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._experiment, name = self._start(known)
            except Exception as error:  # each package has its own errors, and all of them can occur here
                raise TrackerError(f"logger={self.choice}: cannot start: {type(error).__name__}: {error}") from error
            note.write_text(name)
            log.info("%s %s: %s", "Resuming in" if known else "Tracked by", self.choice, name)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._log({name: float(value) for name, value in metrics.items()}, step or 0)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._log_settings(_flatten_dict(_convert_params(params), delimiter="."))

    @rank_zero_only
    def log_figure(self, name: str, figure: Figure, step: int) -> None:
        """Log a plot."""
        self._log_figure(name, figure, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._experiment is not None:
            self._end(status in ("success", "finished"))
            self._experiment = None

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str:
        return ""  # the progress bar would show the end of a version


class WeightsAndBiases(Tracker):
    """Tracker for Weights & Biases; WANDB_API_KEY and the package's other settings come from the environment.

    Args:
        run_dir, project: as of `Tracker`.
        offline: keep everything on this machine, in ``logs/wandb``, for ``wandb sync``; same as WANDB_MODE=offline.

    Raises:
        TrackerError: the package or, in online mode, the key is missing.
    """

    choice, package = "wandb", "wandb"

    def __init__(self, run_dir: str, project: str, offline: bool):
        super().__init__(run_dir, project)
        self.mode = "offline" if offline else os.environ.get("WANDB_MODE", "online")
        if self.mode == "online":
            require_key("WANDB_API_KEY", "logger=wandb", "logger.wandb.offline=true")

    def _start(self, known: str | None) -> tuple[Any, str]:
        import wandb

        name = known or uuid.uuid4().hex
        run = wandb.init(
            project=self.project,
            name=self.run_dir.name,
            id=name,
            dir=self.folder,
            resume="allow",
            mode=self.mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        return run, name

    def _log(self, metrics: dict[str, float], step: int) -> None:
        self.experiment.log(metrics | {"step": step})

    def _log_settings(self, settings: dict[str, Any]) -> None:
        self.experiment.config.update(settings, allow_val_change=True)

    def _log_figure(self, name: str, figure: Figure, step: int) -> None:
        import wandb

        self.experiment.log({name: wandb.Image(figure), "step": step})

    def _end(self, succeeded: bool) -> None:
        self._experiment.finish(exit_code=0 if succeeded else 1)


class Comet(Tracker):
    """Tracker for Comet; COMET_API_KEY and the package's other settings come from the environment.

    Args:
        run_dir, project: as of `Tracker`.
        offline: keep everything on this machine, in ``logs/comet/*.zip``, for ``comet upload``.

    Raises:
        TrackerError: the package or, unless offline, the key is missing.
    """

    choice, package = "comet", "comet_ml"

    def __init__(self, run_dir: str, project: str, offline: bool):
        super().__init__(run_dir, project)
        self.offline = offline
        if not offline:
            require_key("COMET_API_KEY", "logger=comet", "logger.comet.offline=true")

    def _start(self, known: str | None) -> tuple[Any, str]:
        os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")  # otherwise it patches torch, after torch was imported
        import comet_ml

        logging.getLogger("comet_ml").setLevel(logging.WARNING)
        experiment = comet_ml.start(
            project=self.project,
            experiment_key=known or uuid.uuid4().hex,
            mode="get_or_create",
            online=not self.offline,
            experiment_config=comet_ml.ExperimentConfig(
                name=self.run_dir.name,
                offline_directory=str(self.folder / "comet"),
                log_code=False,
                parse_args=False,
                auto_output_logging=False,
            ),
        )
        return experiment, experiment.get_key()

    def _log(self, metrics: dict[str, float], step: int) -> None:
        self.experiment.log_metrics(metrics, step=step)

    def _log_settings(self, settings: dict[str, Any]) -> None:
        self.experiment.log_parameters(settings)

    def _log_figure(self, name: str, figure: Figure, step: int) -> None:
        self.experiment.log_figure(name, figure, step=step)

    def _end(self, succeeded: bool) -> None:
        self._experiment.log_other("finished", succeeded)
        self._experiment.end()


class MLflow(Tracker):
    """Tracker for MLflow.

    Args:
        run_dir, project: as of `Tracker`.
        tracking_uri: of the server; None for a database on this machine.
        store: folder of that database and of the plots of its runs.
    """

    choice, package = "mlflow", "mlflow"

    def __init__(self, run_dir: str, project: str, tracking_uri: str | None, store: str):
        super().__init__(run_dir, project)
        self.tracking_uri, self.store = tracking_uri, Path(store).absolute()
        self.run_id = ""

    def _start(self, known: str | None) -> tuple[Any, str]:
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it may hold a password
        artifacts = None  # a server chooses the location
        if self.tracking_uri is None:
            self.store.mkdir(parents=True, exist_ok=True)
            artifacts = (self.store / "artifacts").as_uri()
        client = MlflowClient(self.tracking_uri or f"sqlite:///{self.store / 'mlflow.db'}")
        if known is not None:
            client.update_run(known, status="RUNNING")
            self.run_id = known
        else:
            found = client.get_experiment_by_name(self.project)
            experiment = found.experiment_id if found else client.create_experiment(self.project, artifacts)
            self.run_id = client.create_run(experiment, run_name=self.run_dir.name).info.run_id
        return client, self.run_id

    def _log(self, metrics: dict[str, float], step: int) -> None:
        client, now = self.experiment, int(time.time() * 1000)
        from mlflow.entities import Metric

        client.log_batch(self.run_id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def _log_settings(self, settings: dict[str, Any]) -> None:
        client = self.experiment
        from mlflow.entities import Param

        known = client.get_run(self.run_id).data.params  # logged parameters cannot be changed
        new = [Param(name, str(value)) for name, value in settings.items() if name not in known]
        for first in range(0, len(new), 100):  # limit per request
            client.log_batch(self.run_id, params=new[first : first + 100])

    def _log_figure(self, name: str, figure: Figure, step: int) -> None:
        client = self.experiment
        client.log_figure(self.run_id, figure, f"{name}_{step}.png")

    def _end(self, succeeded: bool) -> None:
        self._experiment.set_terminated(self.run_id, "FINISHED" if succeeded else "FAILED")


class CSV(CSVLogger):
    """Lightning's CSV logger, except that a resumed run appends to the existing file instead of deleting it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is not None:
            return self._experiment
        path = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
        kept = path.with_suffix(".kept")
        if path.is_file():
            os.replace(path, kept)
        writer = super().experiment
        if kept.is_file():
            os.replace(kept, path)
            writer.metrics_keys = path.read_text().partition("\n")[0].split(",")
        return writer


def require_key(variable: str, choice: str, offline: str) -> None:
    """Check that the environment has a service's key.

    Raises:
        TrackerError: the key is missing.
    """
    if not os.environ.get(variable):
        raise TrackerError(f"{choice}: no key: set the environment variable {variable}, or stay offline: {offline}")


def takes_plots(logger: Logger) -> bool:
    """Return True if `log_figure` can send a plot to the logger."""
    return isinstance(logger, TensorBoardLogger | Tracker)


def log_figure(logger: Logger, name: str, figure: Figure, step: int) -> None:
    """Send a plot to TensorBoard or a `Tracker`."""
    if isinstance(logger, Tracker):
        logger.log_figure(name, figure, step)
    else:
        logger.experiment.add_figure(name, figure, step, close=False)
