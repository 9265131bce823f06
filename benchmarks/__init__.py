"""Training, evaluation and tables: the one trainer, the records and the command line."""
