"""nginx, in front of everything: its program, its configuration, and its reload."""
