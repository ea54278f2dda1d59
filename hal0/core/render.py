"""Definitions rendered from templates. An undefined name in a template is an error, not an empty string."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from jinja2 import Environment, StrictUndefined, Template

from hal0.core.quote import systemd_join, systemd_lines, systemd_text
from hal0.core.spec import Launch, RuntimeName, SlotSpec, container_name


@dataclass(frozen=True)
class Templates:
    """The texts of templates/: one for each runtime."""

    dropin: str
    process: str

    @cached_property
    def _environment(self) -> Environment:
        environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701  (not HTML)
        environment.filters.update(
            systemd=systemd_join, systemd_lines=systemd_lines, systemd_text=systemd_text, toml=toml_string
        )
        return environment

    @cached_property
    def _compiled(self) -> dict[RuntimeName, Template]:
        texts: dict[RuntimeName, str] = {"systemd": self.dropin, "process": self.process}
        return {runtime: self._environment.from_string(text) for runtime, text in texts.items()}

    def render(self, spec: SlotSpec, launch: Launch, runtime: RuntimeName) -> str:
        """Return a slot's definition body, without the mark."""
        return self._compiled[runtime].render(
            slot=spec,
            launch=launch,
            container=container_name(spec.key),
            stop_timeout=round(spec.stop_timeout),
        )


def toml_string(text: str) -> str:
    """Return a TOML basic string. JSON's escapes are a subset of TOML's, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
