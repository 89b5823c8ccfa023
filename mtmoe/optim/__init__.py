"""fairseq's optimizers."""
