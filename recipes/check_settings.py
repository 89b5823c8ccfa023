"""Check what a recipe is given before its first step, and print the settings that make its model.

python recipes/check_settings.py --recipe FOLDER --out OUT --data YAML --minutes M [--keep N] \\
    -- [overrides]

Settings that a training cannot change midway are printed as JSON, for OUT/settings.json; if
checkpoints of other settings lie in OUT, they are refused.
"""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from data_prep.config import load_config
from data_prep.sources.files import check_files
from mtmoe.cli.main import Parser
from mtmoe.errors import ConfigError, run_command
from mtmoe.files import check_folder, check_input

# Groups of fairseq's settings that belong to a model; of the others, only these keys.
GROUPS = ("task", "model", "criterion", "optimizer", "lr_scheduler", "optimization")
KEYS = ("common.seed", "dataset.max_tokens", "dataset.batch_size")
FREE = (  # may change from one run to the next: they say where, and how long
    "optimization.stop_time_hours", "optimization.max_update", "optimization.max_epoch",
    "lr_scheduler.hours", "task.data", "task.save_dir", "task.restore_file",
    "task.finetune_from_model", "task.post_process", "task.checkpoint_format",
    "task.collective_timeout", "optimizer.save_dir", "optimizer.restore_file",
    "optimizer.finetune_from_model",
)  # fmt: skip
Settings = dict[str, Any]  # by full name, such as model.num_experts


def main() -> None:
    """Check, and print the settings."""
    args = parse_arguments()
    warnings.simplefilter("ignore")  # of fairseq's own import
    logging.disable(logging.WARNING)
    for word in args.overrides:
        check_form(word)
    check_minutes(args.minutes)
    check_folder("OUT", args.out)
    check_input("DATA", args.data, ConfigError)
    check_files(load_config(args.data).files)
    settings = compose_settings(Path(args.recipe), args.overrides)
    if args.keep is not None:
        check_keep(args.keep, settings)
    check_unchanged(Path(args.out), settings)
    sys.stdout.write(json.dumps(settings, sort_keys=True) + "\n")


def parse_arguments() -> argparse.Namespace:
    """The options, and the overrides after `--`."""
    parser = Parser("recipes/check_settings.py", description=__doc__)
    for name in ("recipe", "out", "data", "minutes"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--keep", help="of recipes that prune")
    parser.add_argument("overrides", nargs="*")
    return parser.parse_args()


def check_form(word: str) -> None:
    """Refuse what is neither an option of the recipe nor an override.

    Raises:
        ConfigError: says what an argument must be.
    """
    if re.match(r"[A-Z]+=", word):
        raise ConfigError(
            f"{word.split('=')[0]} must stand before the command, but is an argument. "
            f"Write {word} bash .../run.sh."
        )
    if not re.match(r"\+{0,2}[a-z]\w*(\.\w+)*=|~[a-z]\w*\.\w+", word):
        raise ConfigError(
            "arguments must be options of the recipe (see --help) or overrides such as "
            f"model.num_experts=16, but one is {word!r}. Leave it out."
        )


def check_minutes(text: str) -> None:
    """Refuse a time that is no number above 0.

    Raises:
        ConfigError: says what it is.
    """
    if not re.fullmatch(r"\d*\.?\d+", text) or not float(text):
        raise ConfigError(
            f"MINUTES must be a number above 0, but is {text!r}. Write for example MINUTES=60."
        )


def check_keep(text: str, settings: Settings) -> None:
    """Refuse a number of experts that cannot be kept.

    Raises:
        ConfigError: says which can.
    """
    low, high = settings["model.top_k"], settings["model.num_experts"]
    if not settings["model.moe_every"]:
        raise ConfigError("model.moe_every must be 1 or more to prune experts, but is 0. Raise it.")
    if not re.fullmatch(r"\d+", text) or not low <= int(text) <= high:
        raise ConfigError(
            f"KEEP must be a number between {low} (model.top_k) and {high} (model.num_experts), "
            f"but is {text!r}. Write for example KEEP={max(low, high // 2)}."
        )


def check_unchanged(out: Path, settings: Settings) -> None:
    """Refuse settings that the checkpoints in `out` were not trained with.

    Raises:
        ConfigError: names the first key that differs.
    """
    path = out / "settings.json"
    if not path.is_file() or not list((out / "checkpoints").glob("checkpoint*.pt")):
        return
    for key, value in json.loads(path.read_text("utf-8")).items():
        if key in settings and settings[key] != value:
            raise ConfigError(
                f"{key} must be {value}, as the checkpoints in OUT={out} have it, but is "
                f"{settings[key]}. Give another OUT."
            )


def compose_settings(recipe: Path, overrides: list[str]) -> Settings:
    """The settings that fairseq-hydra-train will make of the recipe's train.yaml.

    Raises:
        ConfigError: an override names no setting, or gives a value that is refused.
    """
    from mtmoe.config import MultitaskConfig, TransformerConfig
    from mtmoe.fairseq_view import core_config

    names = [word for word in overrides if re.match(r"\+*\w+\._name=", word)]
    in_yaml, known = map(flatten, compose(recipe, names))
    for word in overrides:
        check_key(word, in_yaml, known)
    _, whole = compose(recipe, overrides)
    check_name(str(whole["model"]["_name"]))
    core_config(TransformerConfig, whole["model"])
    core_config(MultitaskConfig, whole["task"])
    flat = flatten(whole)
    wanted = [key for key in flat if key.split(".")[0] in GROUPS or key in KEYS]
    return {key: flat[key] for key in wanted if key not in FREE}


def compose(
    recipe: Path, overrides: list[str], name: str = "train"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration as Hydra makes it of NAME.yaml, and with the defaults of our groups.

    Raises:
        ConfigError: Hydra refuses an override.
    """
    import hydra
    from fairseq.dataclass.initialize import add_defaults, hydra_init
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    import mtmoe.models.moe_transformer
    import mtmoe.tasks.multitask_translation  # noqa: F401  (what --user-dir imports)

    hydra_init(name)
    given = ["task.data=/", "checkpoint.save_dir=/", "optimization.stop_time_hours=1"]
    try:
        with hydra.initialize_config_dir(str(recipe.resolve()), version_base="1.1"):  # fairseq's
            config = hydra.compose(name, [*given, *overrides])
        config.common.user_dir = None  # has the folder of a run that is not there yet
        plain = OmegaConf.to_container(config, enum_to_str=True)
        add_defaults(config)
        return plain, OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    except (HydraException, OmegaConfBaseException) as error:
        reason = str(error.__cause__ or error).split("\n")[0]
        raise ConfigError(
            f"overrides must give each setting a value of its kind, but {' '.join(overrides)} "
            f"do not: {reason}. See train.yaml of the recipe."
        ) from None


def check_name(name: str) -> None:
    """Refuse a model that is not ours, or misspelt.

    Raises:
        ConfigError: names ours.
    """
    from mtmoe.checkpoint.fairseq_file import MODEL_NAME
    from mtmoe.config import NAMED_SIZES

    known = [MODEL_NAME + size for size in NAMED_SIZES]
    if name not in known:
        raise ConfigError(
            f"model._name must be among {', '.join(known)}, but is {name!r}. Use one."
        )


def check_key(word: str, in_yaml: Settings, known: Settings) -> None:
    """Refuse an override whose key is no setting, or needs `++`.

    Raises:
        ConfigError: names the nearest key, or the override as it must be.
    """
    key = word.lstrip("+~").split("=")[0]
    if key not in known:
        near = difflib.get_close_matches(key, known, 1)
        raise ConfigError(
            f"overrides must name a setting, but {key} is none. "
            + (f"Did you mean {near[0]}?" if near else "See train.yaml of the recipe.")
        )
    if key not in in_yaml and not word.startswith("+"):
        raise ConfigError(
            f"{key} must have ++ in front, since it does not stand in train.yaml, but has none. "
            f"Write ++{word.lstrip('~')}."
        )


def flatten(config: dict[str, Any]) -> Settings:
    """The settings of all groups by full name."""
    groups = {name: group for name, group in config.items() if isinstance(group, dict)}
    return {
        f"{name}.{key}": value for name, group in groups.items() for key, value in group.items()
    }


if __name__ == "__main__":
    sys.exit(run_command(main))
