"""Write activity.csv: made-up windows of a motion sensor, several from each person.

People differ more from each other than their activities do. A model that has seen a person's other windows
recognises the person; the honest question is how it does on people it has never seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

ACTIVITIES = ("sitting", "standing", "stairs", "walking")
NUM_PEOPLE = 24
WINDOWS = 40
"""Windows of each person."""

FEATURES = ("mean", "spread", "peak", "tempo", "tilt", "jerk")


def make_csv(seed: int = 7) -> str:
    """Return the table as CSV text, one row per window."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0.0, 1.0, (len(ACTIVITIES), len(FEATURES)))
    lines = [",".join(("person", *FEATURES, "activity"))]
    for person in range(NUM_PEOPLE):
        habit = rng.normal(0.0, 0.8, (len(ACTIVITIES), len(FEATURES)))
        for window in range(WINDOWS):
            activity = window % len(ACTIVITIES)
            values = centres[activity] + habit[activity] + rng.normal(0.0, 0.5, len(FEATURES))
            lines.append(",".join((f"p{person:02d}", *(f"{value:.3f}" for value in values), ACTIVITIES[activity])))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("activity.csv").write_text(make_csv(), encoding="utf-8")
