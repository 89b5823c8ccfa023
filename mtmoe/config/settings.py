"""What all configs are made with: fields with help, checks, flat values in and out."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from enum import Enum
from typing import Any, TypeVar

from mtmoe.errors import ConfigError

T = TypeVar("T")


def setting(default: T, help_text: str, alias: str | None = None) -> T:
    """A dataclass field with a default and the one line of help that all interfaces show.

    Args:
        alias: a second name on fairseq's command line, e.g. "-s".
    """
    return field(default=default, metadata={"help": help_text, "argparse_alias": alias})


def require(config: object, name: str, is_met: bool, rule: str) -> None:
    """Refuse the value of `config.name` unless `is_met`.

    Raises:
        ConfigError: names the setting, the rule and the value.
    """
    if not is_met:
        raise ConfigError(f"{name} must be {rule}, but is {getattr(config, name)}.")


def flat_fields(config_class: type) -> dict[str, dataclasses.Field[Any]]:
    """The leaf fields of a config class, those of nested configs included; names are unique."""
    found: dict[str, dataclasses.Field[Any]] = {}
    for item in dataclasses.fields(config_class):
        nested = nested_config(item)
        found.update(flat_fields(nested) if nested else {item.name: item})
    return found


def nested_config(item: dataclasses.Field[Any]) -> type | None:
    """The config class that `item` nests, or None for a leaf."""
    factory = item.default_factory
    return factory if isinstance(factory, type) and dataclasses.is_dataclass(factory) else None


def flatten_config(config: object) -> dict[str, Any]:
    """The flat values of a config as plain types; `build_config` is the inverse."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if nested_config(item):
            found.update(flatten_config(value))
        else:
            found[item.name] = value.value if isinstance(value, Enum) else value
    return found


def build_config(config_class: type[T], values: dict[str, Any]) -> T:
    """Make a config, nested ones included, out of flat `values`; missing ones keep their defaults.

    Values of other names are ignored, so that a whole fairseq namespace may be given. Enums may be
    given as members, names or plain strings.

    Raises:
        ConfigError: a value is refused.
    """
    arguments: dict[str, Any] = {}
    for item in dataclasses.fields(config_class):  # type: ignore[arg-type]
        nested = nested_config(item)
        if nested:
            arguments[item.name] = build_config(nested, values)
        elif values.get(item.name) is not None:
            arguments[item.name] = _convert(item, values[item.name])
    return config_class(**arguments)


def _convert(item: dataclasses.Field[Any], value: Any) -> Any:
    kind = type(item.default)
    try:
        if issubclass(kind, Enum):
            return kind(str(getattr(value, "value", value)))
        return kind(value) if kind in (int, float) else value
    except (ValueError, TypeError, OverflowError):
        allowed = (
            ", ".join(map(str, kind)) if issubclass(kind, Enum) else f"of type {kind.__name__}"
        )
        raise ConfigError(f"{item.name} must be {allowed}, but is {value}.") from None
