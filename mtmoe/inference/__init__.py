"""Translation of lines of text with the one network."""
