"""The matrix: every way to run an app, ended in every way, and what was then in the file. See ``python -m matrix``."""
