"""The questions of the quizzes, one file a chapter: package genlib.quizzes."""
