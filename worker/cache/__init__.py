"""Which pages and state slots hold what: bookkeeping for the tensors in `worker.runner`."""
