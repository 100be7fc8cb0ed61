"""What training refuses: data that cannot be trained on, said in one sentence."""


class TrainingDataError(ValueError):
    """The voices, the faces or the work folder do not fit the training; the message states the rule."""
