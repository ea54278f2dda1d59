"""The /v1 data plane: it resolves a request to a slot and forwards it. It never starts or stops one."""
