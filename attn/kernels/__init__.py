"""Fast paths: the same numbers and gradients as the plain versions, which stay the definition."""
