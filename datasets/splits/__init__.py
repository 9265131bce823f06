"""Which image is in which part: long-tailed draws, manifests, published splits."""
