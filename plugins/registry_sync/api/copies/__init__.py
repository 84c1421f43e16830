"""Tags copied from one repository to another over REST."""
