"""How near to a GPU's limits the kernels are, which are measured on it in the same run."""
