"""A meter that reports recorded seconds and bytes for the batch size of each trial."""


class RecordedMeter:
    """`size` is that of the trial now; each pair of `seconds` around a step is the recorded time apart.

    taken: bytes of what runs outside of a trial. slow_steps: steps of each trial that take a second more.
    """

    def __init__(self, seconds, memory, free):
        self.step_seconds, self.memory, self.free_bytes = seconds, memory, free
        self.size, self.taken, self.slow_steps = None, 0, set()
        self.begun = self._calls = 0
        self._now = 0.0

    def begin(self):
        self.begun += 1
        self.size, self._calls = None, 0

    def seconds(self):
        step, is_end = divmod(self._calls, 2)
        if is_end:
            self._now += self.step_seconds[self.size] + (step in self.slow_steps)
        self._calls += 1
        return self._now

    def free(self):
        return self.free_bytes

    def peak(self):
        return self.taken if self.size is None else self.memory[self.size]
