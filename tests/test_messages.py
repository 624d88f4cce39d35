import msgpack
import numpy as np
import pytest
from helpers.learner import sample
from hypothesis import given
from hypothesis import strategies as st

from common import moments
from common.facts import Facts
from common.messages import (
    MAX_PAIRS,
    GradientSample,
    Malformed,
    Reply,
    Verdict,
    decode_theta,
    encode_theta,
    max_bytes,
    pack_reply,
    pack_sample,
    unpack_reply,
    unpack_sample,
)
from common.moments import Moments, empty

REPLY = Reply(Verdict.accepted, 2, 7, "d" * 64, b"\x00\x00\x80?", False, 0.125)
FIELDS = ("kind", "schema", *GradientSample._fields[:-1])  # of schema 1


def assert_equal(a, b):
    for name, left, right in zip(a._fields, a, b, strict=True):
        if isinstance(left, Moments):
            assert left.count == right.count, name
            np.testing.assert_array_equal(left.mean, right.mean)
            np.testing.assert_array_equal(left.m2, right.m2)
        else:
            assert left == right, name


def altered(**changes):
    """A packed honest sample of two pairs with some fields replaced."""
    fields = dict(zip(FIELDS, msgpack.unpackb(pack_sample(sample(pairs=2))), strict=True))
    return msgpack.packb(list((fields | changes).values()))


@pytest.mark.parametrize("pairs", [1, 2, 5])
def test_sample_survives_the_wire(pairs):
    made = sample("node-3/w.12:4", 9, pairs=pairs, epoch=3, version=11, facts=Facts(40.0, finished=1.0))
    assert_equal(made, unpack_sample(pack_sample(made)))


def test_sample_without_rp_survives_the_wire():
    made = sample(rp=moments.empty(6))
    assert_equal(made, unpack_sample(pack_sample(made)))
    assert len(pack_sample(made)) < len(pack_sample(sample())) - 6 * 8 + 8


def test_sample_non_finite_numbers_survive_the_wire():
    rp = moments.of(np.array([[1, np.nan, np.inf, -np.inf, 1e30, 0.0]]))
    read = unpack_sample(pack_sample(sample(rp=rp, loss_plus=(float("nan"),))))
    np.testing.assert_array_equal(read.rp.mean, rp.mean)
    assert np.isnan(read.loss_plus[0])


def test_pack_sample_gives_the_golden_bytes():
    """The wire format of schema 1: a change here needs a new schema number."""
    made = sample(
        worker="w0",
        sequence=3,
        size=2,
        digest="ab",
        windows=(20,),
        loss_plus=(1.5,),
        loss_minus=(2.0,),
        rp=moments.of(np.array([[1.0, -2.0]])),
        es=moments.of(np.array([[0.5, 0.25]])),
        seconds=0.25,
        facts=Facts(finished=1.0),
    )
    golden = (
        "dc0010b16f75746572747261696e2f73616d706c6501a27730030100a26162a5747261696e91149100"
        "91cb3ff800000000000091cb4000000000000000"
        "9301c410000000000000f03f00000000000000c0c09301c410000000000000e03f000000000000d03fc0"
        "cb3fd000000000000081a866696e6973686564cb3ff0000000000000"
    )
    assert pack_sample(made).hex() == golden
    assert_equal(made, unpack_sample(bytes.fromhex(golden)))


def test_pack_reply_gives_the_golden_bytes():
    golden = "99b06f75746572747261696e2f7265706c7901a861636365707465640207a26162c4040000803fc2cb3fc0000000000000"
    reply = REPLY._replace(digest="ab")
    assert pack_reply(reply).hex() == golden
    assert unpack_reply(bytes.fromhex(golden)) == reply


@pytest.mark.parametrize("verdict", [None, *Verdict])
def test_reply_survives_the_wire(verdict):
    for reply in (REPLY._replace(verdict=verdict), REPLY._replace(verdict=verdict, theta=None, stop=True)):
        for ramps in ((), (0,), (17, 0, 3)):
            assert unpack_reply(pack_reply(reply._replace(ramps=ramps))) == reply._replace(ramps=ramps)


def test_sample_of_the_papers_size_is_as_long_as_its_vectors():
    random = np.random.default_rng(0)
    one = pack_sample(sample(size=1090, rp=moments.of(random.normal(size=(1, 1090)))))
    assert 16 * 1090 < len(one) < 16 * 1090 + 400
    assert 32 * 1090 < len(pack_sample(sample(size=1090, pairs=4))) < max_bytes(1090)


HOSTILE = {
    "another kind": dict(kind="outertrain/reply"),
    "another schema": dict(schema=2),
    "schema as truth value": dict(schema=True),
    "no name": dict(worker=""),
    "long name": dict(worker="w" * 65),
    "name with a newline": dict(worker="w\n"),
    "name as bytes": dict(worker=b"w"),
    "negative sequence": dict(sequence=-1),
    "sequence as float": dict(sequence=1.0),
    "sequence as truth value": dict(sequence=True),
    "huge sequence": dict(sequence=2**63),
    "epoch as text": dict(epoch="1"),
    "negative version": dict(version=-1),
    "digest missing": dict(digest=None),
    "objective as list": dict(objective=["train"]),
    "no pairs": dict(windows=[], starts=[], loss_plus=[], loss_minus=[]),
    "window of zero": dict(windows=[0, 20]),
    "window as float": dict(windows=[20.0, 20]),
    "windows as map": dict(windows={"a": 1}),
    "negative start": dict(starts=[-1, 0]),
    "fewer starts": dict(starts=[0]),
    "more losses": dict(loss_plus=[1.0, 1.0, 1.0]),
    "loss as int": dict(loss_minus=[1, 1]),
    "loss nested": dict(loss_minus=[[1.0], 1.0]),
    "moments missing": dict(es=None),
    "moments too short": dict(es=[2, b"\0" * 48]),
    "count negative": dict(es=[-1, None, None]),
    "count beyond pairs": dict(es=[3, b"\0" * 48, b"\0" * 48]),
    "count as truth value": dict(rp=[True, b"\0" * 48, None]),
    "mean missing": dict(es=[2, None, b"\0" * 48]),
    "M2 missing": dict(es=[2, b"\0" * 48, None]),
    "M2 of one": dict(es=[1, b"\0" * 48, b"\0" * 48]),
    "mean of none": dict(rp=[0, b"\0" * 48, None]),
    "mean as text": dict(es=[2, "0" * 48, b"\0" * 48]),
    "half a number": dict(es=[2, b"\0" * 47, b"\0" * 47]),
    "lengths differ": dict(es=[2, b"\0" * 48, b"\0" * 40]),
    "rp and es differ": dict(rp=[2, b"\0" * 40, b"\0" * 40]),
    "vectors of length zero": dict(rp=[2, b"", b""], es=[2, b"", b""]),
    "seconds negative": dict(seconds=-1.0),
    "seconds not finite": dict(seconds=float("inf")),
    "seconds beyond reason": dict(seconds=1e308),
    "seconds as int": dict(seconds=1),
    "facts as list": dict(facts=[]),
    "unknown fact": dict(facts={"password": 1.0}),
    "fact as text": dict(facts={"finished": "1"}),
    "fact not finite": dict(facts={"finished": float("nan")}),
    "fact negative": dict(facts={"finished": -1.0}),
    "extension": dict(seconds=msgpack.ExtType(1, b"x")),
    "timestamp": dict(seconds=msgpack.Timestamp(1)),
}


def test_altered_sample_without_changes_is_valid():
    assert unpack_sample(altered()).windows == (20, 20)


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE.keys())
def test_unpack_sample_hostile_field_is_malformed(changes):
    with pytest.raises(Malformed):
        unpack_sample(altered(**changes))


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"\xc1", b"\xff" * 100, b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),
        *(b"\x81" * 2000, msgpack.packb([1] * (MAX_PAIRS + 1)), msgpack.packb({}), msgpack.packb("outertrain/sample")),
        *(pack_sample(sample()) + b"\0", pack_sample(sample())[:-1], pack_reply(REPLY) + b"\0"),
        *(None, "text", 3, bytearray(pack_sample(sample())), memoryview(pack_sample(sample()))),
    ],
)
def test_unpack_foreign_bytes_are_malformed(payload):
    with pytest.raises(Malformed):
        unpack_sample(payload)
    with pytest.raises(Malformed):
        unpack_reply(payload)


def test_unpack_checks_the_size_before_parsing():
    with pytest.raises(Malformed, match="more than the limit of 100"):
        unpack_sample(pack_sample(sample()), limit=100)
    with pytest.raises(Malformed, match="more than the limit"):
        unpack_sample(b"\xc1" * 101, limit=100)


@pytest.mark.parametrize(
    "changes",
    [{2: "fine"}, {2: 1}, {3: -1}, {4: None}, {5: 7}, {6: b"123"}, {6: "abcd"}, {7: 0}, {8: 1}, {8: 1.5}, {8: -0.5}],
)
def test_unpack_reply_hostile_field_is_malformed(changes):
    fields = msgpack.unpackb(pack_reply(REPLY))
    for index, value in changes.items():
        fields[index] = value
    with pytest.raises(Malformed):
        unpack_reply(msgpack.packb(fields))


@pytest.mark.parametrize("ramps", [[-1], [1.5], None, 3, [], [True], ["3"], [[3]]])
def test_unpack_reply_hostile_ramps_are_malformed(ramps):
    fields = msgpack.unpackb(pack_reply(REPLY._replace(ramps=(3,))))
    assert fields[-1] == [3]
    with pytest.raises(Malformed):
        unpack_reply(msgpack.packb([*fields[:-1], ramps]))


@given(st.binary(max_size=400))
def test_unpack_random_bytes_are_malformed(payload):
    for unpack in (unpack_sample, unpack_reply):
        with pytest.raises(Malformed):
            unpack(payload)


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(FIELDS), ANY)
def test_unpack_any_value_is_read_or_malformed(field, value):
    try:
        read = unpack_sample(altered(**{field: value}))
    except Malformed:
        return
    assert len(read.windows) == len(read.loss_plus) == 2
    assert read.es.mean.shape == read.rp.m2.shape == (6,)


@given(st.integers(0), st.integers(0, 7))
def test_unpack_flipped_bit_is_read_or_malformed(position, bit):
    payload = bytearray(pack_sample(sample(pairs=2)))
    payload[position % len(payload)] ^= 1 << bit
    try:
        read = unpack_sample(bytes(payload))
    except Malformed:
        return
    assert read.es.mean.shape == (6,)


def test_facts_survive_the_wire_in_their_order():
    made = sample(facts=Facts(*(float(k) for k in range(len(Facts._fields)))))
    assert unpack_sample(pack_sample(made)).facts == made.facts
    assert list(msgpack.unpackb(pack_sample(made))[-1]) == list(Facts._fields)


def test_encode_theta_is_little_endian_float32():
    assert encode_theta(np.array([1.0, -2.0])) == b"\x00\x00\x80?\x00\x00\x00\xc0"
    theta = np.random.default_rng(0).normal(size=5).astype(np.float32)
    np.testing.assert_array_equal(decode_theta(encode_theta(theta)), theta)
    assert encode_theta(theta[::-1]) == encode_theta(theta[::-1].copy())


def test_verdict_has_a_label_and_a_sentence():
    for verdict in Verdict:
        assert verdict.value == verdict.name
        assert verdict.sentence.endswith(".") and " " in verdict.sentence


def test_sample_without_observation_survives_the_wire():
    """All pairs of plain backpropagation were dropped: vectors of length 0, whatever the length of theta."""
    read = unpack_sample(pack_sample(sample()._replace(rp=empty(6), es=empty(6))))
    assert (read.rp.count, read.es.count, len(read.rp.mean)) == (0, 0, 0)
