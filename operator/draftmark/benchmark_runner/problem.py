"""How a run ends early with something to tell: a result without numbers, and why."""

from draftmark.measure.result import Refusal


class RunRefused(Exception):
    """There will be no numbers; says why, for the result."""

    def __init__(self, code: str, message: str, *, is_failure: bool = True) -> None:
        # It may quote what a server says, and JSON may say half a character ("\ud800"), of which no result can be written.
        message = message.encode("utf-8", "replace").decode("utf-8")
        super().__init__(message)
        self.refusal = Refusal(code=code, message=message, is_failure=is_failure)
