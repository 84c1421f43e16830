"""The domain of registry-sync as values and pure functions, without input and output."""
