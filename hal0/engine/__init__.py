"""Engines that hal0 brings itself. Each stands alone: the standard library and its own package."""
