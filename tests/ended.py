"""Commands that have ended, for attacks that look at how they did."""


class Ended:
    """A command that has ended."""

    def __init__(self, returncode: int, stderr: str = "") -> None:
        self.returncode, self.stderr = returncode, stderr

    def communicate(self, timeout: float) -> tuple[str, str]:
        return "", self.stderr

    def kill(self) -> None:
        pass

    terminate = kill
