"""The HTTP views over the reconciler."""
