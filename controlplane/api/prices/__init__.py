"""Routes of the price book: tokens, GPU time, storage."""
