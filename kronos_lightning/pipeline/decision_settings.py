"""Settings of every decision of a checkpoint: `decision.json`, which evaluate.py writes beside the checkpoint.

Evaluation, forecast command and service read the same file, so that the same candles give the same signal everywhere.
"""

import hashlib
import inspect
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from hydra.utils import get_class, instantiate
from pydantic import Field, ValidationError, model_validator

from kronos_lightning.backtest import ExecutionRules, Strategy
from kronos_lightning.config.schema import Forecasting
from kronos_lightning.config.sections import ForecastSection
from kronos_lightning.errors import KronosError
from kronos_lightning.forecast.calibration import Calibration
from kronos_lightning.model.pretrained import WEIGHTS_FILE
from kronos_lightning.runs.checkpoint_lookup import Sources
from kronos_lightning.settings import Count, Positive, Section, parse_interval
from kronos_lightning.storage import atomic_path, sha256

from .forecasting import stored_with
from .scoreboard import EvaluationResult

FILE = "decision.json"
OWN = "kronos_lightning."
KEYS = {  # of the forecast command, and the field that each takes its value from
    "lookback": "lookback",
    "horizon": "horizon",
    "clip": "clip",
    "seed": "seed",
    **{f"forecast.{name}": f"forecast.{name}" for name in ForecastSection.model_fields},
}

log = logging.getLogger("evaluate")


class DecisionError(KronosError, ValueError):
    """Error for a `decision.json` that is missing, damaged or of other weights; the message says what to do."""


class Weights(Section):
    """SHA-256 of the weight files; None for weights without a local folder."""

    predictor: str | None
    tokenizer: str | None


class EvaluationSummary(Section):
    """Facts of the evaluation that a reader of a decision has to know.

    verdict, notices: sentences of the report.
    first, last: first cutoff and last forecast candle of the test range, in UTC.
    cutoffs: number of forecasts.
    predictor: sentence that describes the origin of the predictor.
    random_weights, synthetic: True if a network was never trained, or the candles were made up.
    """

    verdict: list[str]
    notices: list[str]
    first: str
    last: str
    cutoffs: Count
    predictor: str
    random_weights: bool
    synthetic: bool


class DecisionSettings(Section):
    """Content of `decision.json`.

    symbol, interval: market and candles of the evaluation.
    model, max_context: size of the networks and the number of candles that they see.
    lookback, horizon, clip, volume, seed: as in the configuration of the evaluation.
    forecast: sampling in use; with a calibration, the calibrated temperature and top-p.
    strategy, parameters: class and arguments of the strategy, and the parameters chosen on validation; None = as given.
    execution, act_every_n_cutoffs: execution rules.
    calibration: SHA-256 of the calibration's content; None = not calibrated.
    weights: hashes of the measured weights.
    evaluation: facts of the evaluation.
    """

    version: Literal[1] = 1
    symbol: str
    interval: str
    model: str
    max_context: Count
    lookback: Annotated[int, Field(ge=2)]
    horizon: Count
    clip: Positive
    volume: bool
    seed: Annotated[int, Field(ge=0)]
    forecast: ForecastSection
    strategy: dict[str, Any]
    parameters: dict[str, float] | None
    execution: ExecutionRules
    act_every_n_cutoffs: Count
    calibration: str | None
    weights: Weights
    evaluation: EvaluationSummary

    @model_validator(mode="after")
    def _consistent(self) -> "DecisionSettings":
        parse_interval(self.interval)
        return self

    def save(self, directory: Path) -> None:
        """Write `decision.json` into a directory."""
        with atomic_path(directory / FILE) as temporary:
            temporary.write_text(self.model_dump_json(indent=2))

    @classmethod
    def load(cls, directory: Path) -> "DecisionSettings | None":
        """Read the file of a directory; return None if there is none.

        Raises:
            DecisionError: the file is damaged or of another version.
        """
        path = directory / FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "content"
            raise DecisionError(
                f"{path}: damaged or of another version ({place}: {first['msg']}); run evaluate.py again"
            ) from error

    @classmethod
    def of(cls, directory: Path) -> "DecisionSettings":
        """Read the file of a directory.

        Raises:
            DecisionError: there is none, or it is damaged.
        """
        found = cls.load(directory)
        if found is None:
            raise DecisionError(f"{directory}: not evaluated, no {FILE}; run evaluate.py on this checkpoint first")
        return found

    def build_strategy(self, trusted: str | None = None) -> Strategy:
        """Build the strategy with the chosen parameters.

        Args:
            trusted: class outside of this package that may be used. A checkpoint folder may come from anywhere, so no
                other code is run on its word.

        Raises:
            DecisionError: the class is not trusted, cannot be imported, or is no strategy.
        """
        target = str(self.strategy.get("_target_"))
        if not target.startswith(OWN) and target != trusted:
            raise DecisionError(f"{FILE}: the strategy {target} is not of this package; set trusted_strategy={target}")
        try:
            kind = get_class(target)
        except (ImportError, ValueError) as error:
            raise DecisionError(f"{FILE}: the strategy {target} cannot be imported ({error})") from error
        if not inspect.isclass(kind) or not callable(getattr(kind, "signals", None)):
            raise DecisionError(f"{FILE}: {target} is not a strategy")
        strategy: Strategy = instantiate(self.strategy, _convert_="all")
        return strategy if self.parameters is None else strategy.with_parameters(**self.parameters)

    def checked_calibration(self, directory: Path) -> Calibration | None:
        """Return the calibration of the evaluation, or None if it had none.

        Raises:
            DecisionError: the calibration in the directory is another one or missing.
        """
        if self.calibration is None:
            return None
        found = Calibration.load(directory)
        if found is None or digest(found) != self.calibration:
            raise DecisionError(
                f"{directory}: calibration.json is not the one that {FILE} was written with; run evaluate.py again"
            )
        return found

    def check_weights(self, sources: Sources) -> None:
        """Raise `DecisionError` if the weights are not those of the evaluation."""
        found = weights(sources)
        for name in ("predictor", "tokenizer"):
            if getattr(found, name) != getattr(self.weights, name):
                raise DecisionError(
                    f"{sources.directory}: {FILE} was written for another {name} (SHA-256 differs); "
                    f"run evaluate.py on this checkpoint"
                )


def digest(calibration: Calibration) -> str:
    """Return the SHA-256 of a calibration's content, whatever the layout of its file."""
    return hashlib.sha256(json.dumps(calibration.as_dict(), sort_keys=True).encode()).hexdigest()


def weights(sources: Sources) -> Weights:
    """Hash the weight files of a forecaster."""
    places = {"predictor": sources.directory, "tokenizer": sources.tokenizer_directory}
    return Weights(**{name: sha256(place / WEIGHTS_FILE) if place else None for name, place in places.items()})


def decision_settings(result: EvaluationResult, verdict: Sequence[str], notices: Sequence[str]) -> DecisionSettings:
    """Collect the settings of an evaluation that decide; with several folds, those of the last fold.

    Args:
        result: the evaluation.
        verdict, notices: sentences of its report.
    """
    settings, whole, forecasts, trading = result.settings, result.whole, result.forecasts, result.trading
    sources, calibration = whole.sources, whole.calibration
    sampling = {} if calibration is None else {"temperature": calibration.temperature, "top_p": calibration.top_p}
    chosen = settings.backtest.parameters == "validation" and trading.search is not None
    synthetic = result.candles.synthetic or bool((sources.info or {}).get("synthetic"))
    return DecisionSettings(
        symbol=result.candles.symbol,
        interval=settings.data.interval,
        model=settings.model.name,
        max_context=settings.model.max_context,
        lookback=settings.data.lookback,
        horizon=settings.data.horizon,
        clip=settings.data.clip,
        volume=settings.data.volume,
        seed=settings.seed,
        forecast=settings.forecast.model_copy(update=sampling),
        strategy=settings.strategy,
        parameters=trading.search.best if chosen and trading.search is not None else None,
        execution=ExecutionRules(**{name: getattr(settings.backtest, name) for name in ExecutionRules.model_fields}),
        act_every_n_cutoffs=settings.backtest.act_every_n_cutoffs,
        calibration=None if calibration is None else digest(calibration),
        weights=weights(sources),
        evaluation=EvaluationSummary(
            verdict=list(verdict),
            notices=list(notices),
            first=str(forecasts.cutoffs[0]),
            last=str(forecasts.stamps[-1, -1]),
            cutoffs=len(forecasts),
            predictor=sources.predictor,
            random_weights=any(name.startswith("random") for name in (sources.predictor, sources.tokenizer)),
            synthetic=synthetic,
        ),
    )


def store_decision(decision: DecisionSettings, settings_tokenizer: str, sources: Sources) -> None:
    """Store `decision.json` where the calibration is stored: beside a local checkpoint that was trained on this market.

    Args:
        decision: the settings.
        settings_tokenizer: key `tokenizer` of the evaluation; only the checkpoint's own tokenizer counts.
        sources: origin of the networks.
    """
    if settings_tokenizer != "auto" or (directory := stored_with(sources, decision.symbol, FILE)) is None:
        return
    try:
        decision.save(directory)
    except OSError as error:
        log.warning("%s could not be stored with the checkpoint: %s", FILE, error)
    else:
        log.info("Decisions: %s", directory / FILE)


def as_evaluated(
    settings: Forecasting, decision: DecisionSettings, given: Collection[str]
) -> tuple[Forecasting, Mapping[str, Any]]:
    """Take the settings of a forecast from `decision.json`, except those that the user has given.

    Args:
        settings: configuration of the forecast command.
        decision: settings of the evaluation.
        given: keys on the command line.

    Returns:
        The settings, and the values of the given keys that differ from those of the evaluation.
    """
    forecast = settings.forecast
    changes: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for key, field in KEYS.items():
        section, _, name = field.rpartition(".")
        evaluated = getattr(decision.forecast if section else decision, name)
        wanted = getattr(settings.forecast if section else settings, name)
        if key in given or (section and section in given):
            overrides |= {} if wanted == evaluated else {key: wanted}
        elif section:
            forecast = forecast.model_copy(update={name: evaluated})
        else:
            changes[name] = evaluated
    model = settings.model
    if not any(key.split(".")[0] == "model" for key in given):
        model = model.model_copy(update={"name": decision.model, "max_context": decision.max_context})
    elif model.max_context != decision.max_context:
        overrides["model.max_context"] = model.max_context
    return settings.model_copy(update={**changes, "forecast": forecast, "model": model}), overrides
