"""mtmoe: multilingual machine translation with Mixture-of-Experts layers, a plugin of fairseq."""

__version__ = "0.1.0"
