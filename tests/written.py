"""Manifests as texts of both styles of YAML."""

from __future__ import annotations

import json
import re
from io import StringIO

from ruamel.yaml import YAML
from strategies import Data


def block_yaml(datas: list[Data]) -> str:
    yaml, stream = YAML(typ="safe", pure=True), StringIO()
    yaml.default_flow_style = False
    yaml.allow_unicode = False
    yaml.dump_all(datas, stream)
    return stream.getvalue()


def flow_yaml(datas: list[Data]) -> str:
    """Return JSON, which YAML is a superset of, but for characters that it wants escaped."""
    texts = (json.dumps(data, ensure_ascii=False, indent=1) for data in datas)
    return re.sub(r"[^\n -~]", lambda found: f"\\U{ord(found[0]):08x}", "\n---\n".join(texts))
