"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """Bad input or a bad environment: one line that says what, got, allowed and what to do.

    The command line prints the message on one line of stderr and exits with code 2; a program that uses
    ltbench as a library catches it as a `ValueError`.
    """
