"""What a cluster holds, kept true in memory: for the operator and the SSH gateway."""
