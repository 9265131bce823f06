"""A trained model at work: its network with preprocessing, probabilities and decisions for new images, exports."""
