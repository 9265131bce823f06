"""What a stage is trained with: networks, hooks, batches, optimizers."""
