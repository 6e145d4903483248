"""What a site engineer is told of the way to the coordinator: nothing that its SuperNode's log does not say."""

from __future__ import annotations

import inspect

from fedphantom.client.node.connection import BACK, GIVEN_UP, LET_IN, TRIED_AGAIN, UNANSWERED_S, Connection

OTHER = b"INFO: something else"


def test_it_answers_once_the_node_was_let_in_and_that_is_said_once() -> None:
    connection = Connection(0.0)
    assert connection.change([OTHER], 1.0) is None
    assert connection.change([b"INFO :      SuperNode ID: 123"], 2.0) == "answers"
    assert connection.change([OTHER], 500.0) is None


def test_a_coordinator_that_never_answers_is_told_of_once_after_a_minute() -> None:
    connection = Connection(10.0)
    assert connection.change([TRIED_AGAIN], 10.0 + UNANSWERED_S - 0.1) is None
    assert connection.change([TRIED_AGAIN], 10.0 + UNANSWERED_S) == "silent"
    assert connection.change([TRIED_AGAIN], 10.0 + 5 * UNANSWERED_S) is None
    assert connection.change([LET_IN], 10.0 + 6 * UNANSWERED_S) == "answers"


def test_a_door_that_opens_is_not_yet_a_coordinator_that_lets_the_site_in() -> None:
    connection = Connection(0.0)
    assert connection.change([TRIED_AGAIN, BACK], 1.0) is None
    assert connection.change([BACK], UNANSWERED_S) == "silent"


def test_a_short_silence_is_not_worth_a_word_a_long_one_is_and_its_end() -> None:
    connection = Connection(0.0)
    assert connection.change([LET_IN], 1.0) == "answers"
    assert connection.change([TRIED_AGAIN], 2.0) is None
    assert connection.change([BACK], 20.0) is None
    assert connection.change([TRIED_AGAIN], 30.0) is None
    assert connection.change([TRIED_AGAIN], 30.0 + UNANSWERED_S) == "silent"
    assert connection.change([BACK], 200.0) == "answers"


def test_a_node_that_is_started_again_and_again_without_being_let_in_is_one_silence() -> None:
    connection = Connection(0.0)
    for minute in range(1, 5):
        connection.started_again(minute * 15.0)
    assert connection.change([], UNANSWERED_S) == "silent"
    connection = Connection(0.0)
    assert connection.change([LET_IN], 1.0) == "answers"
    connection.started_again(100.0)
    assert connection.change([], 100.0 + UNANSWERED_S - 1) is None
    assert connection.change([], 100.0 + UNANSWERED_S) == "silent"


def test_flower_still_writes_these_lines() -> None:
    from flwr.supercore.retry import http_retry
    from flwr.supernode import start_client_internal

    assert LET_IN.decode() in inspect.getsource(start_client_internal)
    for line in (BACK, GIVEN_UP, TRIED_AGAIN):
        assert line.decode() in inspect.getsource(http_retry)
