"""The questions of the quizzes, one file a chapter. A wheel carries this folder as the package genlib.quizzes."""
