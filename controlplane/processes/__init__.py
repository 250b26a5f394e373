"""Local processes that can be told from strangers, listed durably and started again with patience.
For `supervisor` and `local`."""
