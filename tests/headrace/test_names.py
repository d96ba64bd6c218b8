"""Public names: no two classes of the package share one."""

from name_shares import is_one_word, shared_class_names


def test_no_two_public_classes_have_the_same_name() -> None:
    assert shared_class_names() == {}


def test_one_word_is_told_from_two() -> None:
    words = {name: is_one_word(name) for name in ("Place", "seen", "PartitionEntry", "read_csv", "HTTP")}

    assert words == {"Place": True, "seen": True, "PartitionEntry": False, "read_csv": False, "HTTP": False}
