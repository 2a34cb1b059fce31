"""The table of statements is complete and says what the tests say."""

from mqtt import table


def test_every_statement_has_tests_or_a_reason():
    assert table.faults() == []


def test_the_table_is_not_stale():
    assert table.TABLE.read_text() == table.rendered(), "run python3 clients/mqtt/table.py"
