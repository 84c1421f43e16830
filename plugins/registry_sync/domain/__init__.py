"""The words of registry-sync as values and pure functions. No input or output happens here."""
