"""Terminal on which tables and sentences are printed as they are: no markup, no control characters, no secrets."""

from typing import Any

from rich.console import Console
from rich.text import Text

from kronos_lightning.settings.text import shown


class Terminal(Console):
    """Console of rich for text that may come from files and servers."""

    def __init__(self, **options: Any):
        super().__init__(**{"markup": False, "emoji": False} | options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string to rich's text; brackets and control characters have no effect."""
        return super().render_str(shown(text), **options)
