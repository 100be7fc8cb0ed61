"""The error of this package that a user can cause; a picture that cannot be used is a reason, not an error."""


class PhotographError(ValueError):
    """An unknown detector, a missing extra, a gate out of range or a missing path; the message has one line."""
