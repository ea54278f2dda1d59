"""A real host for tests: systemd, D-Bus, journald and podman in namespaces of their own, over this machine's root."""
