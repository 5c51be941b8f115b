"""A stand-in for imagecodecs, which anomalib imports and its models do not use."""
