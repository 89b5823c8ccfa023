"""Datasets without fairseq: vocabulary, batches, sampling over directions."""
