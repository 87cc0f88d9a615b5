"""Rows and files: the truth about models, evaluation sets, sweeps and the work that is left."""
