"""Errors of other libraries in one line."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
