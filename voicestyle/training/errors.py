"""The error of the training."""


class TrainingDataError(ValueError):
    """The voices, the faces or the work folder are unsuitable for the training; the message states the rule."""
