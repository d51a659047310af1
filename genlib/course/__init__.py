"""What turns pages into a course: :func:`check` judges the answer to a lab's gap."""

from genlib.course.checks import check

__all__ = ["check"]
