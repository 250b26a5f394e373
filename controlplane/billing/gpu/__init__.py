"""GPU time and volumes: from proofs to charges, warnings and stops."""
