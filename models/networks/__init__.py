"""One network per file; a network takes ``[N, *network_shape]`` float32 and returns one score per label."""
