"""What finished trials decide for whoever has to choose a method: facts, what rows cost, and the text."""
