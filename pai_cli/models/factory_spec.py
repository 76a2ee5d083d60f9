"""What `package.module:factory(arguments)` says, before anything of it is imported. Imports no torch."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pai_cli.errors import ModelSpecError
from pai_cli.spelling import option

_SPEC = re.compile(r"(?P<where>.+?):(?P<attribute>[A-Za-z_][\w.]*)(?P<call>\(.*\))?", re.DOTALL)


@dataclass(frozen=True)
class FactorySpec:
    """The parts: `where` it stands, the name `attribute` there, and `call`, the brackets with its arguments, or None."""

    text: str
    where: str
    attribute: str
    call: str | None

    @property
    def file(self) -> Path | None:
        """The file, where it stands in one and not in a module."""
        return Path(self.where) if self.where.endswith(".py") else None

    @property
    def code(self) -> list[Path]:
        """The files that may hold it."""
        module = Path(*self.where.split("."))
        return [module.with_suffix(".py"), module / "__init__.py"] if self.file is None else [self.file]

    @property
    def positional(self) -> list[Any]:
        """Arguments without names."""
        return self._arguments[0]

    @property
    def named(self) -> dict[str, Any]:
        """Arguments with names."""
        return self._arguments[1]

    @cached_property
    def _arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Numbers, texts, lists and other literals: nothing in the brackets is run. Raises `ModelSpecError`."""
        if self.call is None:
            return [], {}
        try:
            parsed = ast.parse(f"f{self.call}", mode="eval").body
            if not isinstance(parsed, ast.Call) or any(one.arg is None for one in parsed.keywords):
                raise ValueError("no plain call")
            named = {str(one.arg): ast.literal_eval(one.value) for one in parsed.keywords}
            return [ast.literal_eval(one) for one in parsed.args], named
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as e:
            raise ModelSpecError(
                f"{option('model', self.text)}: the arguments in brackets must be literals, such as (classes=10, width=0.5)"
            ) from e


def parts_of(spec: str) -> FactorySpec:
    """The parts of what names a factory. Raises `ModelSpecError` for what names none."""
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise ModelSpecError(
            f"{option('model', spec)}: give package.module:factory or file.py:factory, its arguments in brackets"
        )
    return FactorySpec(spec, found["where"], found["attribute"], found["call"])
