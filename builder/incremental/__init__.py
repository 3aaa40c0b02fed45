"""What has to run again: what results depend on, what the user's code was seen to read, what is kept."""
