"""The oracle of workload.py on histories made by hand: it must be able to fail."""

import workload


def operation(kind, number, start, end, outcome=workload.DONE):
    made = workload.Operation("n1", "k", number, kind == "write")
    made.start, made.end, made.outcome = start, end, outcome
    return made


def violations(*operations):
    return workload.violations_of_key("k", sorted(operations, key=lambda one: one.end))


def test_histories_without_a_fault():
    assert not violations(operation("read", 0, 0, 1), operation("write", 1, 2, 3), operation("read", 1, 4, 5))
    # A read that overlaps the write may return either, and so may two that overlap each other.
    assert not violations(operation("write", 1, 2, 6), operation("read", 1, 3, 5), operation("read", 0, 2, 4))
    # An unknown write may be there or not.
    assert not violations(operation("write", 1, 0, 1), operation("write", 2, 2, 3, workload.UNKNOWN),
                          operation("read", 1, 4, 5))
    assert not violations(operation("write", 1, 0, 1), operation("write", 2, 2, 3, workload.UNKNOWN),
                          operation("read", 2, 4, 5))


def test_an_acknowledged_write_is_lost():
    assert violations(operation("write", 1, 0, 1), operation("read", 0, 2, 3))


def test_reads_go_back():
    assert violations(operation("write", 1, 0, 1, workload.UNKNOWN), operation("read", 1, 2, 3),
                      operation("read", 0, 4, 5))


def test_a_write_that_was_not_applied_is_read():
    assert violations(operation("write", 1, 0, 1, workload.NOT_DONE), operation("read", 1, 2, 3))


def test_a_value_out_of_nowhere():
    assert violations(operation("read", 7, 2, 3))
    assert violations(operation("read", 1, 2, 3), operation("write", 1, 4, 5))
