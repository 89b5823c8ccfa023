"""Speed of mtmoe beside its peers; see `python -m benchmarks.moe_layer --help`."""
