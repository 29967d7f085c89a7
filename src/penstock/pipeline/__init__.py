"""One pipe at work: copy, stream, write, save, confirm."""
