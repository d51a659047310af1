"""What turns pages into a course.

:func:`check` judges the answer to a lab's gap, :func:`code` prints what the reader of a lab has passed, and
:func:`quiz` asks the questions of a chapter. Models that run inside a page are in :mod:`genlib.course.live` and, for
labs, :mod:`genlib.course.explore`.
"""

from genlib.course.checks import check, code
from genlib.course.quizzes import quiz

__all__ = ["check", "code", "quiz"]
