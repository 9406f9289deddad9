"""Where the names of a model's classes come from: a label file, or the model's own metadata."""

from __future__ import annotations

import ast
import json
import logging
import re
from pathlib import Path

import onnx

from edge_fg.errors import LabelsError, UsageError
from edge_fg.label_files import parse_labels, read_labels
from edge_fg.labels import Labels

_LOGGER = logging.getLogger("edge_fg")
# Keys under which exporters write the names: Ultralytics, and what others call it.
_KEYS = frozenset(
    {"names", "class_names", "class_labels", "label_names", "labels", "classes", "categories"}
    | {"id2label", "label2id", "class_to_idx", "idx_to_class", "label_map"}
)
_MOST_CHARACTERS = 4 << 20
_TEXT = r"'(?:[^'\\\n]|\\['\"\\xuU])*'|\"(?:[^\"\\\n]|\\['\"\\xuU])*\""
_ITEM = rf"(?:(?:[0-9]{{1,9}}|{_TEXT})\s*:\s*)?(?:[0-9]{{1,9}}|{_TEXT})"
# A list, tuple or mapping as Python prints it. Nothing is nested, so that evaluating it is safe.
_PRINTED = re.compile(rf"[\[({{]\s*{_ITEM}(?:\s*,\s*{_ITEM})*\s*(?:,\s*)?[\])}}]")


def class_labels(path: Path | None, model: onnx.ModelProto, classes: int) -> Labels:
    """Return the labels of a file or, where there is none, of the model's metadata.

    A file whose names are those of the metadata in another order is used, with a warning. Raises
    LabelsError where the file can't be used, and UsageError where there is no file and the
    metadata hold no names of `classes` classes, or different ones.
    """
    own, problems = metadata_labels(model, classes)
    # Two properties that name the same classes are no contradiction.
    different = {tuple(labels.names): key for key, labels in own.items()}
    if path is not None:
        labels = read_labels(path, classes=classes)
        for names, key in different.items():
            if list(names) != labels.names and sorted(names) == sorted(labels.names):
                _LOGGER.warning(
                    "%s has the names of the model's own metadata (`%s`) in another order: one of "
                    "the two is wrong; %s is used",
                    path,
                    key,
                    path,
                )
        return labels
    if len(different) == 1:
        key, labels = next(iter(own.items()))
        _LOGGER.info("the names of the classes are those of the model's metadata, `%s`", key)
        return labels
    if different:
        why = f"in the model's metadata, {' and '.join(f'`{key}`' for key in own)} differ"
    else:
        why = f"the model's metadata hold none{''.join(f'; {text}' for text in problems[:3])}"
    raise UsageError(f"what are the names of the {classes} classes? Give --labels: {why}")


def metadata_labels(
    model: onnx.ModelProto, classes: int
) -> tuple[dict[str, Labels], tuple[str, ...]]:
    """Return the labels of each property that names so many classes; and what others lack."""
    found: dict[str, Labels] = {}
    problems = []
    for entry in (one for one in model.metadata_props if one.key.lower() in _KEYS):
        if len(entry.value) > _MOST_CHARACTERS:
            problems.append(f"`{entry.key}` is longer than {_MOST_CHARACTERS >> 20} MB")
            continue
        try:
            labels = _parse(entry.value.strip(), f"`{entry.key}`")
        except LabelsError as error:
            problems.append(str(error))
            continue
        if len(labels) == classes:
            found[entry.key] = labels
        else:
            problems.append(f"`{entry.key}` has {len(labels)} names")
    return found, tuple(problems)


def _parse(text: str, where: str) -> Labels:
    """Parse JSON, what Python prints, or names between commas or on lines."""
    if text[:1] not in ("[", "(", "{"):
        lines = text if "\n" in text else "\n".join(part.strip() for part in text.split(","))
        return parse_labels(lines.encode(), where=where)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        if _PRINTED.fullmatch(text):
            try:
                text = json.dumps(ast.literal_eval(text))
            except (SyntaxError, ValueError, TypeError) as error:
                raise LabelsError(f"{where} is no list or mapping of names") from error
    return parse_labels(text.encode(), where=where, suffix=".json")
