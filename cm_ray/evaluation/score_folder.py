"""Scores in a folder: scores.json has a row with the whole key for each score, scores.md a table."""

from __future__ import annotations

from collections.abc import Sequence

from cm_ray.errors import UserError
from cm_ray.metrics.score import ROW, Score
from cm_ray.runs.directory import ANOTHER_DIRECTORY, RunDirectory
from cm_ray.storage.files import read_json, write_json, written_aside


class Scored:
    """The scores of one source, from this call and from earlier ones."""

    def __init__(self, run: RunDirectory, source: str, content: str) -> None:
        """Load the scores of earlier calls, and write source.json, which reserves the folder for the source.

        source: the name that the user gave.  content: digest of the model or of the images.  Raises UserError
        when the folder belongs to another job or to another source or content: keys of scores do not contain
        the source, so scores of two sources would replace each other.
        """
        self._folder, claim = run.root, run.source_file
        run.check_owner(claim)
        if (
            claim.is_file()
            and (found := read_json(claim, {"source": str, "content": str}))["content"] != content
        ):
            raise UserError(
                f"{run.root} holds scores of {found['source']} with other content than {source} has now; "
                f"choose {ANOTHER_DIRECTORY}, or remove the folder."
            )
        self._scores = self._earlier()
        write_json(claim, {"source": source, "content": content})

    def add(self, scores: Sequence[Score]) -> None:
        """Write scores; they replace earlier ones with the same key and metric."""
        self._scores |= {_identity(score): score for score in scores}
        write_json(self._folder / "scores.json", [score.to_row() for score in self._scores.values()])
        with written_aside(self._folder / "scores.md") as aside:
            aside.write_text(table(list(self._scores.values())))

    def _earlier(self) -> dict[str, Score]:
        file = self._folder / "scores.json"
        try:
            scores = [Score.from_row(row) for row in (read_json(file, [ROW]) if file.is_file() else [])]
        except ValueError as error:
            raise UserError(f"{file} is damaged ({error}); restore it or remove it.") from error
        return {_identity(score): score for score in scores}


def _identity(score: Score) -> str:
    return f"{score.compared} {score.metric}"


def table(scores: Sequence[Score]) -> str:
    """Return scores as a Markdown table."""
    lines = [
        "| score | sampler | labels | value | ± | samples | seed | reference | images as |",
        "|---|---|---|---:|---:|---:|---:|---|---|",
    ]
    for score in scores:
        key, error = score.key, "" if score.error is None else f"{score.error:.2g}"
        lines.append(
            f"| {score.name} | `{key['sampler']}` | {_cell(key['labels'])} | {score.value:.4g} | {error} "
            f"| {key['n']} | {key['seed']} | {key['reference'][:12]} | {_cell(key['preprocess'])} |"
        )
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """Return a text without the character that ends a cell."""
    return text.replace("|", "/")
