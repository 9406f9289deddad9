"""What the model is asked on one frame, kept until its answers come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from edge_fg.errors import UsageError
from edge_fg.result import Region, VisitEvent
from edge_fg.tracking.individual import Individual, PredictionLike

PredictionT = TypeVar("PredictionT", bound=PredictionLike)


@dataclass(eq=False)
class Question:
    """One region that the model is asked about.

    Parameters
    ----------
    individual
        Who is there.
    region
        (x, y, width, height) in pixels.
    quality
        What the answer will be worth, 0..1.
    """

    individual: Individual
    region: Region
    quality: float


@dataclass(eq=False)
class Look:
    """What was seen on one frame whose answers have not come yet.

    Parameters
    ----------
    time_s
        The frame's clock.
    questions
        What the model is asked.
    seen
        Who was seen, and where.
    events
        What became known before any answer.
    """

    time_s: float
    questions: list[Question]
    seen: list[tuple[Individual, Region]]
    events: list[VisitEvent]

    def take_in(
        self, regions: Sequence[Region], predictions: Sequence[PredictionT]
    ) -> dict[int, PredictionT]:
        """Give each individual its answer; return them by the individual's identity.

        Raises
        ------
        UsageError
            A region was not asked about.
        """
        answers: dict[int, PredictionT] = {}
        left = list(self.questions)
        for region, prediction in zip(regions, predictions, strict=True):
            question = next((one for one in left if one.region == tuple(region)), None)
            if question is None:
                raise UsageError(f"region {tuple(region)} was not proposed for this frame")
            left.remove(question)
            question.individual.take_in(prediction, self.time_s, question.quality)
            answers[id(question.individual)] = prediction
        return answers
