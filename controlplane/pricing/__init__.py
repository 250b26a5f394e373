"""What things cost: price versions and pure rating."""
