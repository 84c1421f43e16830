"""What tests stand on: real servers started for a test, and content to fill them with."""
