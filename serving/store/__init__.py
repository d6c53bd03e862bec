"""The files of the models: the model store's index, its archives, and the list of live versions."""
