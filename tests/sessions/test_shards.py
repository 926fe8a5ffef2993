"""A data set cut into shards: the samples' order, the files, and what they take."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import DataError, InputError
from edgekit.protocol.messages import Window
from edgekit.sessions.data import Dataset, check_data
from edgekit.sessions.shards import Shards, epoch_order
from tests.runner.programs import Classifier, sample_data, shuffled, write_data

SAMPLES = 103


def shards(dataset: Dataset | None = None, entry: str = "train_step", accumulate: int = 1) -> Shards:
    program = Classifier(accumulate=accumulate).program()
    if dataset is None:
        inputs, targets = sample_data(SAMPLES)
        dataset = {"inputs": inputs, "targets": targets}
    return Shards(check_data(dataset, program, entry), program, entry)


def window(made: Shards, limit: int, steps: int = 3, shuffle: bool = True) -> Window:
    return Window(
        first=0, wanted=0, until=2, total=-(-limit // (steps * made.per_step)), steps=steps, samples=SAMPLES, limit=limit, seed=5,
        shuffle=shuffle, digest=made.digest, folder="/spool",
    )  # fmt: skip


def arrays(shard: bytes) -> list[np.ndarray]:
    """The arrays of a shard's file, by docs/protocol.md."""
    magic, _, _, samples, count = struct.unpack_from("<8sQ32sII", shard)
    assert magic == b"EKSHARD1"
    found, at = [], 192
    for size in struct.unpack_from("<16Q", shard, 56)[:count]:
        assert at % 64 == 0
        found.append(np.load(io.BytesIO(shard[at : at + size])))
        assert len(found[-1]) == samples
        end, at = at + size, at + size + -size % 64
    assert end == len(shard)
    return found


@pytest.mark.parametrize(("samples", "seed", "epoch"), [(1, 0, 0), (2, 1, 0), (103, 5, 7), (1000, 2**32 - 1, 2**31)])
def test_the_order_is_the_runners(samples: int, seed: int, epoch: int) -> None:
    assert epoch_order(samples, seed, epoch).tolist() == shuffled(samples, seed, epoch)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_shards_in_a_row_are_the_training(shuffle: bool, accumulate: int) -> None:
    """Three epochs, each without its rest; shards reach from one epoch into the next, and the last one is shorter."""
    inputs, targets = sample_data(SAMPLES)
    made = shards(accumulate=accumulate)
    kept = SAMPLES // (4 * accumulate) * 4 * accumulate
    asked = window(made, 3 * kept, shuffle=shuffle)
    order = [i for epoch in range(3) for i in (shuffled(SAMPLES, 5, epoch) if shuffle else range(SAMPLES))[:kept]]
    parts = [arrays(made.build(asked, number)) for number in range(asked.total)]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in parts]), inputs[order])
    np.testing.assert_array_equal(np.concatenate([t for _, t in parts]), targets[order])


def test_shards_of_an_evaluation_have_every_sample_once() -> None:
    inputs, _ = sample_data(SAMPLES)
    made = shards(entry="evaluate")
    asked = window(made, SAMPLES, shuffle=False)
    np.testing.assert_array_equal(np.concatenate([arrays(made.build(asked, n))[0] for n in range(asked.total)]), inputs)


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    inputs, targets = sample_data(SAMPLES)
    digest = shards().digest
    assert shards(write_data(tmp_path / "d", inputs, targets)).digest == digest
    changed = inputs.copy()
    changed[50, 1] = np.nextafter(changed[50, 1], np.float32(9))
    others = [(changed, targets), (inputs, targets.astype(np.int32)), (inputs[:-1], targets[:-1])]
    digests = {shards({"inputs": x, "targets": t}).digest for x, t in others} | {digest}
    assert len(digests) == 4


def test_another_data_set_is_refused() -> None:
    inputs, targets = sample_data(SAMPLES, seed=2)
    with pytest.raises(DataError, match="another data set") as caught:
        shards({"inputs": inputs, "targets": targets}).check(window(shards(), 100))
    assert "--data" in caught.value.hint


@pytest.mark.parametrize("most", [2000, 4000, 10**4, 10**5, 10**9])
def test_a_spool_is_within_its_bound(most: int) -> None:
    made = shards()
    spool = made.spool(most)
    assert 2 <= spool.ahead <= 16
    assert spool.ahead * len(made.build(window(made, 100, steps=spool.steps), 0)) <= spool.bytes <= most


def test_a_spool_without_room_for_two_steps_is_refused() -> None:
    made = shards()
    assert made.spool(made.least).ahead == 2
    with pytest.raises(InputError, match="two shards of one step"):
        made.spool(made.least - 1)
