"""What others declared, as hal0's manifests: llama-swap's configuration, compose files, quadlet units. Pure."""
