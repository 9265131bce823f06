"""Ways to run trials: each takes specs and yields outcomes, and keeps no state."""
