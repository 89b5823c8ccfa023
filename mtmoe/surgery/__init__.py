"""Checkpoint in, checkpoint out: pruning of experts."""
