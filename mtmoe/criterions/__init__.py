"""fairseq's criterions."""
