"""Cache of the networks that a forecaster folds, safe to share between threads."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from torch import nn

Folded = TypeVar("Folded")


class FoldCache(Generic[Folded]):
    """One folded value and the state of the weights that it was made from.

    Copies and pickles of a cache are empty: the folded networks are cheap to make and large to send.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[object, Folded] | None = None

    def get(self, state: object, make: Callable[[], Folded]) -> Folded:
        """Return the value made for this state; one thread makes it while the others wait."""
        kept = self._kept
        if kept is None or kept[0] != state:
            with self._lock:
                kept = self._kept
                if kept is None or kept[0] != state:
                    self._kept = kept = state, make()
        return kept[1]

    def __reduce__(self) -> tuple[type["FoldCache[Folded]"], tuple[()]]:
        return FoldCache, ()


def weight_versions(network: nn.Module) -> tuple[tuple[int, int], ...]:
    """Return a key that changes with a network's weights: its parameters and their numbers of writes."""
    found: list[nn.Parameter | None] = []
    modules = [network]
    while modules:  # network.parameters() takes several times as long, which would slow down short forecasts
        module = modules.pop()
        modules.extend(filter(None, module._modules.values()))
        found.extend(module._parameters.values())
    return tuple((id(p), 0 if p is None or p.is_inference() else p._version) for p in found)
