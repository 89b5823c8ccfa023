"""What the experts do: numbers and pictures."""
