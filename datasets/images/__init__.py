"""Images on disk and in batches: store, parts, augmentation."""
