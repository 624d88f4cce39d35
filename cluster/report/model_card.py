"""A learned optimizer as a folder that a model hub takes: theta as safetensors, and a model card."""

import json
from dataclasses import asdict
from pathlib import Path

from cluster.report.literals import escaped
from common.messages import theta_sha256
from common.pretrained import safetensors_file
from common.pretrained.learned import Pretrained

# `origin` and names come from files and users: they stand in a code block, escaped, and never in the YAML head.
CARD = """---
library_name: outertrain
tags:
- learned-optimizer
- optax
- jax
---

# {title}

A learned optimizer of the family `{family}` with {size} parameters, written by outertrain.

## Use

    import outertrain
    tx = outertrain.load("{folder}")  # this folder: an optax transformation, whose update needs params

`outertrain export {folder} -o my_optimizer.py` writes it as a module that needs only jax and optax, `outertrain evaluate
{folder}` compares it with tuned baselines, and `outertrain train --from {folder}` continues its outer-training.

## Facts

    origin     {origin}
    sha256     {sha256} of theta (float32, little-endian)
    optimizer  {optimizer}
{facts}
## Files

`{file}` holds one tensor for each kernel and bias, in float32; its metadata say which optimizer they belong to.
"""


def write_folder(learned: Pretrained, folder: Path, facts: dict[str, str]) -> None:
    """Writes `model.safetensors` and `README.md`, and creates the folder. Raises OSError.

    Args:
      facts: how theta was trained, in a few words each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    safetensors_file.save(folder / safetensors_file.FILE, learned)
    (folder / "README.md").write_text(card(learned, folder.absolute().name, facts), encoding="utf-8")


def card(learned: Pretrained, name: str, facts: dict[str, str]) -> str:
    """The text of README.md."""
    plain = name if name.isascii() and all(c.isalnum() or c in "._-" for c in name) else "FOLDER"
    return CARD.format(
        title=plain if plain != "FOLDER" else "A learned optimizer",
        folder=plain,
        family=learned.optimizer.family,
        size=len(learned.theta),
        sha256=theta_sha256(learned.theta),
        origin=escaped(learned.origin),
        optimizer=json.dumps(asdict(learned.optimizer)),
        facts="".join(f"    {escaped(key)[1:-1]:<11}{escaped(value)}\n" for key, value in facts.items()),
        file=safetensors_file.FILE,
    )
