"""Base class of every error that a user can fix."""


class KronosError(Exception):
    """Input, setting or environment that a user can correct; the message says what is wrong, where, and what to do.

    The commands print it as one line and exit with code 1. Any other exception is a defect of this project.
    """
