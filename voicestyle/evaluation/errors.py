"""The error of this package."""


class EvaluationError(ValueError):
    """An unusable list, embedding file or recording; the message names the file, the rule and what was received."""
