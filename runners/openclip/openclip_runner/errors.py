"""Why a job ends before its end."""


class BadInput(Exception):
    """The job or its data can't work: no retry."""


class Diverged(Exception):
    """The loss is no number."""


class Stopped(Exception):
    """On request, after a checkpoint."""


class Lost(Exception):
    """Something failed that may work another time."""
