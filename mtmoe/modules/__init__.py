"""The one network, in plain PyTorch; it knows neither fairseq nor files."""
