"""What ships: files that classify without PyTorch, smaller arithmetic, fewer channels, each checked against its run."""
