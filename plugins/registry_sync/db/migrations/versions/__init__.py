"""One module for each revision, numbered in the order they are run."""
