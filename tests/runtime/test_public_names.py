"""Old names work, and say which name to use."""

import pytest

from edge_fg.public_names import deprecated_alias


class Visit:
    def __init__(self) -> None:
        self.started_s = 1.5

    started = deprecated_alias("started_s")


def test_an_old_name_gives_the_value_and_warns():
    with pytest.warns(DeprecationWarning, match=r"^Visit\.started is .* use started_s$") as caught:
        assert Visit().started == 1.5
    assert caught[0].filename == __file__


def test_an_old_name_cannot_be_set():
    with pytest.raises(AttributeError):
        Visit().started = 2.0  # type: ignore[misc]
