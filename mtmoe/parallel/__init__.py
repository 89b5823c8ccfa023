"""Several ranks: the mesh and its collectives, on torch.distributed."""
