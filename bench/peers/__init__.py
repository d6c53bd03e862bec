"""The same predictor behind other servers, one short file each; ``bench.compare`` starts and times them."""
