"""How far the probabilities of finished trials can be relied on: calibration, operating points, conformal sets."""
