"""The state of the installation over REST."""
