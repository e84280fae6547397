import pytest

from fedreid_mpi.wording import counted


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ("rank",), "0 ranks"),
        (1, ("rank",), "1 rank"),
        (2, ("rank",), "2 ranks"),
        (1, ("match", "matches"), "1 match"),
        (12_936, ("image is", "images are"), "12,936 images are"),
    ],
)
def test_numbers_and_nouns_agree(number, words, expected):
    assert counted(number, *words) == expected
