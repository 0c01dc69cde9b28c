"""Search of a sweep: the search space in Hydra's override syntax, and three search strategies."""

import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override

from kronos_lightning.errors import KronosError

DIGITS = 6  # significant digits of a drawn number, few enough for readable commands and folders


class SweepError(KronosError, ValueError):
    """Error if a sweep cannot run as requested; the message says what to do."""


@dataclass(frozen=True)
class Space:
    """Overrides of a sweep by key; some of them stand for several values."""

    overrides: dict[str, Override]

    @classmethod
    def parse(cls, params: Mapping[str, Any], arguments: list[str], loader: ConfigLoader | None = None) -> "Space":
        """Parse a preset's `params` and the command line's `arguments`, which take precedence; null removes a key.

        Raises:
            SweepError: an interval is empty, or a logarithmic interval starts at or below zero.
        """
        texts = [f"{key}={value}" for key, value in params.items() if value is not None]
        parsed = OverridesParser.create(config_loader=loader).parse_overrides([*texts, *arguments])
        space = cls({override.get_key_element().lstrip("+~"): override for override in parsed})
        for key, override in space.swept.items():
            if override.is_interval_sweep():
                _check_interval(key, override.value())
        return space

    @property
    def swept(self) -> dict[str, Override]:
        """Overrides that vary, by key."""
        return {key: override for key, override in self.overrides.items() if override.is_sweep_override()}

    def trial(self, chosen: Mapping[str, str]) -> list[str]:
        """Return all overrides of the trial in which the swept keys have the values `chosen`."""
        return [
            f"{override.get_key_element()}={chosen[key]}" if key in chosen else str(override.input_line)
            for key, override in self.overrides.items()
        ]


class TrialSearch(Protocol):
    """Search strategy. A trial is identified by its list of overrides."""

    def planned(self) -> list[list[str]]:
        """Return the trials that are known before the first trial runs."""

    def ask(self, count: int | None) -> list[list[str]]:
        """Return the next trials, at most `count` (None = all); an empty list ends the search."""

    def tell(self, trial: list[str], value: float | None) -> None:
        """Report the result of a trial; None = the trial failed."""


class Listed:
    """Fixed list of trials that does not depend on earlier results."""

    def __init__(self, trials: list[list[str]]):
        self._trials, self._next = trials, 0

    def planned(self) -> list[list[str]]:
        """Return all trials."""
        return self._trials

    def ask(self, count: int | None) -> list[list[str]]:
        """Return the next trials."""
        begin, self._next = self._next, len(self._trials) if count is None else self._next + count
        return self._trials[begin : self._next]

    def tell(self, trial: list[str], value: float | None) -> None:
        """Ignore the result: results do not influence later trials."""


def grid(space: Space) -> Listed:
    """List every combination, the last key varying fastest.

    Raises:
        SweepError: a key has an interval, which cannot be enumerated.
    """
    for key, override in space.swept.items():
        if override.is_interval_sweep():
            raise SweepError(f"{key}: a grid cannot enumerate an interval; use hydra/sweeper=random or optuna")
    values = [list(override.sweep_string_iterator()) for override in space.swept.values()]
    return Listed([space.trial(dict(zip(space.swept, chosen, strict=True))) for chosen in itertools.product(*values)])


def draws(space: Space, trials: int, seed: int) -> Listed:
    """Draw at most `trials` different random trials; more trials with the same seed begin with the same trials."""
    generator, found = random.Random(seed), {}
    for _ in range(trials * 20):
        if len(found) < trials:
            trial = space.trial({key: _draw(override, generator) for key, override in space.swept.items()})
            found.setdefault(tuple(trial), trial)
    return Listed(list(found.values()))


class Bayesian:
    """Search strategy of Optuna's TPE, with a study on disk that lets an interrupted sweep resume.

    Args:
        space: values to search.
        trials: total number of trials, including those of an earlier session.
        seed: of the proposals.
        study_file: SQLite file; an existing study is resumed.
        direction: "min" or "max".

    Raises:
        SweepError: Optuna is not installed.
    """

    def __init__(self, space: Space, trials: int, seed: int, study_file: Path, direction: str):
        try:
            import optuna
        except ImportError as error:
            raise SweepError(
                "hydra/sweeper=optuna needs a package: pip install -e '.[optuna]'; hydra/sweeper=random does not"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._trials, self._states = space, trials, optuna.trial.TrialState
        self.study = optuna.create_study(
            storage=f"sqlite:///{study_file}", study_name="sweep", direction=f"{direction}imize", load_if_exists=True
        )
        # A resumed study must not repeat its first random numbers.
        self.study.sampler = optuna.samplers.TPESampler(seed=seed + len(self.study.trials))
        self._waiting = [trial for trial, known in self._known().items() if known.state == self._states.RUNNING]

    def planned(self) -> list[list[str]]:
        """Return the trials of an earlier session."""
        return [list(trial) for trial in self._known()]

    def ask(self, count: int | None) -> list[list[str]]:
        """Return first the interrupted trials, then new proposals; a proposal that ran before is not repeated."""
        count = len(self._waiting) + self._trials if count is None else count
        asked = [list(trial) for trial in self._waiting[:count]]
        del self._waiting[:count]
        while len(asked) < count and len(self.study.trials) < self._trials:
            known, proposal = self._known(), self.study.ask()
            chosen = {key: _suggest(proposal, key, override) for key, override in self._space.swept.items()}
            trial = self._space.trial(chosen)
            earlier = known.get(tuple(trial))
            if earlier is None:
                proposal.set_user_attr("overrides", trial)
                asked.append(trial)
            elif earlier.state == self._states.COMPLETE:
                self.study.tell(proposal, earlier.value)
            else:
                self.study.tell(proposal, state=self._states.FAIL)
        return asked

    def tell(self, trial: list[str], value: float | None) -> None:
        """Report the result to the study."""
        known = self._known()[tuple(trial)]
        if known.state == self._states.RUNNING:
            self.study.tell(known.number, value, state=self._states.FAIL if value is None else self._states.COMPLETE)

    def _known(self) -> dict[tuple[str, ...], Any]:
        trials = self.study.get_trials(deepcopy=False)
        return {tuple(t.user_attrs["overrides"]): t for t in trials if "overrides" in t.user_attrs}


def _check_interval(key: str, interval: IntervalSweep) -> None:
    if not interval.start < interval.end:
        raise SweepError(f"{key}: interval({interval.start},{interval.end}) is empty")
    if "log" in interval.tags and interval.start <= 0:
        raise SweepError(f"{key}: a logarithmic interval must begin above zero, not at {interval.start}")


def _draw(override: Override, generator: random.Random) -> str:
    if not override.is_interval_sweep():
        return generator.choice(list(override.sweep_string_iterator()))
    interval = override.value()
    if "log" in interval.tags:
        number = math.exp(generator.uniform(math.log(interval.start), math.log(interval.end)))
    elif isinstance(interval.start, int):
        number = generator.randint(interval.start, interval.end)
    else:
        number = generator.uniform(interval.start, interval.end)
    return _text(number, interval)


def _suggest(proposal: Any, key: str, override: Override) -> str:
    """Return Optuna's proposal for a key; a range is ordered, a choice is not."""
    if override.is_interval_sweep():
        interval, log = override.value(), "log" in override.value().tags
        suggest = proposal.suggest_int if isinstance(interval.start, int) else proposal.suggest_float
        return _text(suggest(key, interval.start, interval.end, log=log), interval)
    values = list(override.sweep_string_iterator())
    if override.is_range_sweep():
        return values[proposal.suggest_int(f"{key} (place in its range)", 0, len(values) - 1)]
    return proposal.suggest_categorical(key, values)


def _text(number: float, interval: IntervalSweep) -> str:
    """Format the number with six significant digits, clipped to the interval."""
    rounded = round(number) if isinstance(interval.start, int) else float(f"{number:.{DIGITS}g}")
    return str(min(max(rounded, interval.start), interval.end))
