"""What users read when they are refused."""

import pytest

from pretrain.command import UserError


def refusal(work, *arguments, **named) -> str:
    """The sentence of the UserError that the call raises: one line, with an end."""
    with pytest.raises(UserError) as raised:
        work(*arguments, **named)
    message = str(raised.value)
    assert "\n" not in message and message.endswith((".", "?"))
    return message
