"""Reading and writing of checkpoints."""
