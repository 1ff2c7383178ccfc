"""What hears Redis."""
