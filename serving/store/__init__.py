"""From files to what may be served: the model store's index, its archives, and the live versions."""
