"""From a request to finished trials: protocol, trials, the one trainer, its journal."""
