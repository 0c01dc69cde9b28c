"""Log as JSON lines."""

import json
import logging
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """Formatter that writes one JSON object per record; a message that is an object gives its keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        message = record.getMessage()
        try:
            content = json.loads(message) if message.startswith("{") else None
        except ValueError:
            content = None
        told |= content if isinstance(content, dict) else {"message": message}
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)
