"""From probabilities to an answer's body."""
