"""The precise prefix cache: what its scorer and its producer share; imported by nobody else."""
