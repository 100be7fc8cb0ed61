"""The error of this package that a user can cause; a picture that cannot be used is a reason, not an error."""


class PhotographError(ValueError):
    """An unknown detector, a missing extra, gates out of range or a path that does not exist; the message has one line."""
