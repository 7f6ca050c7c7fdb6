"""What runs at a person's desk: the command line, the one flow of a run, and who starts its processes."""
