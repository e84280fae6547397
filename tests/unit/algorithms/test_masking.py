import hmac
import itertools
import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from fedreid_mpi.algorithms.masking import KEY_BYTES, TILE, mask, mask_key, partners_of

LENGTH = 2 * TILE + 77


def keys_of(count, seed=0):
    random = np.random.default_rng(seed)
    return [X25519PrivateKey.from_private_bytes(random.bytes(32)) for _ in range(count)]


def public(key):
    return key.public_key().public_bytes_raw()


def masked(sums, neighbours, purpose="models 0"):
    """Every rank's sum as it leaves the rank."""
    privates, found = keys_of(len(sums)), []
    for place, total in enumerate(sums):
        partners = partners_of(place, len(sums), neighbours)
        hidden = total.view(np.uint64).copy()
        mask(hidden, [(mask_key(privates[place], public(privates[o]), purpose), place < o) for o in partners])
        found.append(hidden)
    return found


def drawn_sums(count, length=LENGTH):
    random = np.random.default_rng(count)
    return [random.integers(-(2**58), 2**58, length) for _ in range(count)]


@pytest.mark.parametrize("neighbours", [0, 2, 4])
@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_masks_cancel_in_the_sum_of_all(count, neighbours):
    sums = drawn_sums(count)
    total = sum(masked(sums, neighbours))  # modulo 2^64
    assert (total.view(np.int64) == sum(sums)).all()


def test_the_mask_is_the_key_stream_as_rfc_8439_has_it():
    """The first block of ChaCha20 with a key of zeros, counter and nonce 0: RFC 8439, A.1, test vector 1."""
    stream = bytes.fromhex(
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    total = np.arange(8, dtype=np.uint64)
    mask(total, [(bytes(32), True)])
    assert total.tolist() == [
        (n + int.from_bytes(stream[8 * n : 8 * n + 8], "little")) % 2**64 for n in range(8)
    ]
    mask(total, [(bytes(32), False)])
    assert total.tolist() == list(range(8))


def test_one_tile_goes_on_where_the_one_before_ended():
    from cryptography.hazmat.primitives.ciphers import Cipher

    key = bytes(range(32))
    whole = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(8 * LENGTH))
    total = np.zeros(LENGTH, np.uint64)
    mask(total, [(key, True)])
    assert total.tobytes() == whole


@pytest.mark.parametrize("count", range(2, 14))
@pytest.mark.parametrize("neighbours", [0, 2, 4, 6])
def test_partners_are_mutual_and_as_many_as_asked_for(count, neighbours):
    graph = {place: partners_of(place, count, neighbours) for place in range(count)}
    degree = min(neighbours or count, count - 1)
    for place, partners in graph.items():
        assert len(set(partners)) == len(partners) == degree
        assert place not in partners
        assert all(place in graph[other] for other in partners)


@pytest.mark.parametrize(("count", "neighbours"), [(7, 2), (9, 4), (8, 4), (9, 6)])
def test_without_fewer_than_k_ranks_the_rest_stays_connected(count, neighbours):
    for gone in itertools.combinations(range(count), neighbours - 1):
        left = set(range(count)) - set(gone)
        reached, edge = set(), [min(left)]
        while edge:
            place = edge.pop()
            reached.add(place)
            edge += [other for other in partners_of(place, count, neighbours) if other in left - reached]
        assert reached == left


def test_partners_derive_one_key_and_others_another():
    a, b, c = keys_of(3)
    key = mask_key(a, public(b), "models 0")
    assert len(key) == KEY_BYTES
    assert key == mask_key(b, public(a), "models 0")
    assert len({key, mask_key(a, public(b), "models 1"), mask_key(a, public(c), "models 0")}) == 3


def test_the_key_is_that_of_hkdf_over_the_shared_secret():
    """HKDF with SHA-256 (RFC 5869) by hand, over the secret of RFC 7748, section 6.1."""
    alice = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
    bob = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    secret = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    own = X25519PrivateKey.from_private_bytes(bytes.fromhex(alice))
    info = b"fedreid_mpi mask\0" + b"".join(sorted((public(own), bytes.fromhex(bob)))) + b"\0features 2"
    extracted = hmac.digest(bytes(32), secret, "sha256")
    expected = hmac.digest(extracted, info + b"\1", "sha256")
    assert mask_key(own, bytes.fromhex(bob), "features 2") == expected


def test_a_public_key_of_another_length_is_refused():
    (own,) = keys_of(1)
    with pytest.raises(ValueError, match="32 bytes"):
        mask_key(own, bytes(31), "models 0")


def test_a_masked_vector_alone_looks_uniform():
    """Of sums that are all but empty: bytes by chi-squared, bits by their counts, neighbours by correlation.

    Each limit is passed by chance once in a million; the keys are fixed, so that the test never wavers.
    """
    sums = [np.zeros(1 << 17, np.int64) + rank for rank in range(3)]
    for hidden in masked(sums, 2):
        counts = np.bincount(hidden.view(np.uint8), minlength=256)
        expected = hidden.nbytes / 256
        squares = ((counts - expected) ** 2 / expected).sum()
        assert abs(squares - 255) < 5 * math.sqrt(2 * 255)
        ones = np.unpackbits(hidden.view(np.uint8).reshape(-1, 8), axis=1).sum(0, dtype=np.int64)
        assert (np.abs(ones - len(hidden) / 2) < 6 * math.sqrt(len(hidden)) / 2).all()
        uniform = hidden / 2.0**64
        deviation = np.abs(np.sort(uniform) - (np.arange(len(uniform)) + 0.5) / len(uniform)).max()
        assert deviation < 2.7 / math.sqrt(len(uniform))  # Kolmogorov and Smirnov
        assert abs(np.corrcoef(uniform[:-1], uniform[1:])[0, 1]) < 5 / math.sqrt(len(uniform))
