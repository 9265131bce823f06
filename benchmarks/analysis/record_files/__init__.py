"""The files of a record: their values, digests and predictions, what is damaged, and which records to take."""
