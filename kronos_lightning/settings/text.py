"""Text from settings, files and servers that is safe to show: no passwords, no control characters."""

import logging
import re
from typing import Any

HIDDEN = "***"
# Between "://" and "@" of a URL. A password with "/" has to be encoded; it is hidden all the same.
USER = re.compile(r"(?<=://)(?:[^\s/@'\"\\]+:[^\s'\"]*|[^\s/'\"]+)(?=@)")
NAMES = r"api_?key|access_?token|auth_?token|secret|password|passwd|private_?key|passphrase|signature"
QUERY = re.compile(rf"(?<=[?&])((?:{NAMES}|token|key)=)[^&\s'\"#]+", re.IGNORECASE)
NAMED = re.compile(
    rf"(?<![\w])(['\"]?(?:{NAMES})['\"]?\s*[:=]\s*)"
    r"(?!null\b)(?:'[^']*'|\"[^\"]*\"|[^\s,'\"{}&*]+)",
    re.IGNORECASE,
)
SECRET_KEY = re.compile(NAMES, re.IGNORECASE)
# C0 except tab and newline, DEL, C1, and the marks that change the order in which text is shown.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def masked(text: str) -> str:
    """Return text in which user names, passwords and keys of URLs, and the values of such names, are ``***``."""
    if "://" in text:
        text = QUERY.sub(rf"\1{HIDDEN}", USER.sub(HIDDEN, text))
    return NAMED.sub(rf"\1{HIDDEN}", text)


def masked_values(content: Any, key: str = "") -> Any:
    """Return nested settings without the secrets in their strings; see `masked`."""
    if isinstance(content, dict):
        return {name: masked_values(value, str(name)) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [masked_values(value, key) for value in content]
    if isinstance(content, str):
        return HIDDEN if content and SECRET_KEY.fullmatch(key) else masked(content)
    return content


def printable(text: str) -> str:
    """Return text with control characters as escapes such as ``\\x1b``; a terminal would obey them."""
    return UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def shown(text: str) -> str:
    """Return text as it may go to a terminal or a log: without secrets and control characters."""
    return printable(masked(text))


class LineFormatter(logging.Formatter):
    """Formatter of log lines, without secrets and control characters of whatever a message quotes."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; see `shown`."""
        return shown(super().format(record))
