"""A batch over eight host devices: the same noise bit for bit, the same images up to rounding."""

import json

from launch import printed

# The network's rounding, in vector loops of another length.
ROUNDING = 1e-5


def test_a_sharded_batch_is_the_same_batch() -> None:
    found = json.loads(printed("-m", "tests.sampling.sharded", devices=8).splitlines()[-1])
    assert found["devices"] == 8
    for name, run in found["runs"].items():
        assert run["prior"], name
        assert run["noise"], name
        assert run["difference"] <= ROUNDING, name
        assert run["devices"] == 8, name  # the images stay where they were made
        assert run["rows"] == [2], name
