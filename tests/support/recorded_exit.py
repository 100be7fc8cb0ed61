"""The end of the handler's process, recorded instead of done."""

from types import SimpleNamespace


class Exited(BaseException):
    """In place of the end of the process."""


class RecordedExit:
    """statuses: of the exits. timers: (seconds, function) of those that were started."""

    def __init__(self):
        self.timers = []
        self.statuses = []

    def exit(self, status):
        self.statuses.append(status)
        raise Exited

    def timer(self, seconds, function):
        return SimpleNamespace(start=lambda: self.timers.append((seconds, function)))
