"""The same predictor behind other servers, one file each; ``bench.compare`` starts and measures them."""
