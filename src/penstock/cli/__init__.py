"""The command line: a thin surface over control, one file a verb."""
