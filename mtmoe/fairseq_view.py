"""Core settings as fairseq sees them: help and defaults are written once, in `mtmoe.config`."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any, TypeVar

from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.configs import FairseqConfig
from omegaconf import II, DictConfig

from mtmoe.checkpoint.fairseq_file import as_dict
from mtmoe.config import build_config, flat_fields
from mtmoe.errors import EXIT_USER_MISTAKE, MtmoeError

T = TypeVar("T")


def fairseq_view(
    config_class: type,
    name: str,
    defaults: dict[str, Any] | None = None,
    borrowed: dict[str, str] | None = None,
    base: type[FairseqDataclass] = FairseqDataclass,
) -> type[FairseqDataclass]:
    """The FairseqDataclass of a core config; nested configs become flat fields.

    Args:
        defaults: values that differ from the core's, e.g. of a named size.
        borrowed: fields that take value and type of one of fairseq's own, e.g.
            {"seed": "common.seed"}.
        base: whose fields it has beside them.
    """
    fields: list[tuple[str, Any, Any]] = []
    for key, item in flat_fields(config_class).items():
        default = (defaults or {}).get(key, item.default)
        view = dataclasses.field(default=default, metadata=dict(item.metadata))
        fields.append((key, type(item.default), view))
    for key, path in (borrowed or {}).items():
        fields.append((key, _type_of(path), dataclasses.field(default=II(path))))
    return dataclasses.make_dataclass(name, fields, bases=(base,))


def _type_of(path: str) -> Any:
    """The type of one of fairseq's own settings, `group.name`."""
    kind: Any = FairseqConfig
    for name in path.split("."):
        kind = kind.__dataclass_fields__[name].type
    return kind


def core_config(config_class: type[T], cfg: DictConfig | Any) -> T:
    """The core config that a section of fairseq's config stands for.

    Raises:
        ConfigError: a value is refused.
    """
    return build_config(config_class, as_dict(cfg))


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """End fairseq's program with one sentence and exit code 2 where the user made a mistake."""
    try:
        yield
    except MtmoeError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(EXIT_USER_MISTAKE) from None
