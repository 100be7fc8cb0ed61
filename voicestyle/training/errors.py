"""The errors of the training."""


class TrainingError(ValueError):
    """A training that cannot start or go on; the message states the rule and what was received."""


class TrainingDataError(TrainingError):
    """The voices, the faces or the work folder are unsuitable for the training; the message states the rule."""
