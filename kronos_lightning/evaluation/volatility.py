"""Volatility that varies by candle: GARCH(1,1) with Student's t (Bollerslev, 1987), fitted by `arch`.

    return_i = √variance_i · shock_i,   variance_{i+1} = omega + alpha · return_i² + beta · variance_i

Shocks are Student's t with unit variance. The mean is zero: a candle's mean return is far smaller than the error of
estimating it. RiskMetrics' EWMA is the case omega = 0, alpha = 1 − beta.

Shape letters: n returns, S sample paths, h horizon.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

LARGEST_MOVE = np.log(10.0)  # bound of a candle's log return in a path; fat tails with a rising variance may overflow


@dataclass(frozen=True, kw_only=True)
class Garch:
    """GARCH(1,1) parameters for log returns; `degrees` of freedom > 2."""

    omega: float
    alpha: float
    beta: float
    degrees: float

    def variances(self, returns: np.ndarray, first: float) -> np.ndarray:
        """Compute the variance of each return ``(n,)`` given earlier returns, and of the next return: ``(n + 1,)``.

        The variance of the first return is `first`.
        """
        news = self.omega + self.alpha * returns**2
        return np.concatenate([[first], lfilter([1.0], [1.0, -self.beta], news, zi=[self.beta * first])[0]])

    def simulate(self, variance: float, shocks: np.ndarray) -> np.ndarray:
        """Simulate log returns ``(S, h)`` from shocks with unit variance ``(S, h)``.

        `variance` is the variance of the first step.
        """
        returns, current = np.empty_like(shocks), np.full(len(shocks), variance)
        for step in range(shocks.shape[1]):
            move = np.clip(np.sqrt(current) * shocks[:, step], -LARGEST_MOVE, LARGEST_MOVE)
            returns[:, step] = move
            current = self.omega + self.alpha * move**2 + self.beta * current
        return returns

    def shocks(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Draw shocks from Student's t with unit variance."""
        drawn: np.ndarray = rng.standard_t(self.degrees, shape) * np.sqrt(1 - 2 / self.degrees)
        return drawn


EWMA = Garch(omega=0.0, alpha=0.06, beta=0.94, degrees=5.0)  # RiskMetrics (1996) for daily returns; t for the tails


def fit_garch(returns: np.ndarray) -> Garch | None:
    """Fit by maximum likelihood from `arch`'s starting values; None if that fails or the returns do not vary.

    The result for returns ``(n,)`` does not depend on earlier fits.
    """
    from arch import arch_model  # takes seconds to import; only evaluations need it

    scale = returns.std()
    if scale == 0:
        return None
    model = arch_model(returns / scale, mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False)
    result = model.fit(disp="off", show_warning=False)
    if result.convergence_flag or not np.isfinite(result.params).all():
        return None
    omega, alpha, beta, degrees = map(float, result.params)
    return Garch(omega=omega * scale**2, alpha=alpha, beta=beta, degrees=degrees)
