"""Functions of tensors, without state.

Capitals are shapes: T tokens of this rank, D model width, F expert width, E experts of the layer,
L experts of this rank, K experts per token, C slots per expert, R rows in expert order, B
sentences, S positions, V vocabulary, H attention heads.
"""
