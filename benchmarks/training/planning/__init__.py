"""From a request to its trials: what it means for the data, the methods and this machine."""
