"""The supervisor, the processes that it starts, and the commands that reach it."""
