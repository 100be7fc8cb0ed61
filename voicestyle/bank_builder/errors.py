"""The error of a bank build that the user can mend."""


class BankError(ValueError):
    """Photographs, options or a folder that do not allow to build a bank; the message gives the rule and the value."""
