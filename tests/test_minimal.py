"""If only one file is run, this one: a few seconds, the built extension included."""

import numpy as np

import spd_fast as spd


def test_a_cell_becomes_a_motif_that_learns() -> None:
    """Two tiny motifs fit ten noise images: loss falls well below chance, and the same seed gives the same bits."""
    conv = spd.Cell(["011", "001", "000"], ["input", "conv3x3-bn-relu", "output"])
    pool = spd.Cell(["0110", "0001", "0001", "0000"], ["input", "maxpool3x3", "conv1x1-bn-relu", "output"])
    shape = spd.MotifShape(8, classes=5)
    dish = spd.Dish.random(per_class=2, classes=5, image_size=8)
    settings = {"epochs": 40, "batch_size": 5, "optimizer": spd.Adam(lr=1e-2), "seed": 1}
    result = spd.train_motifs([conv, pool], shape, dish, **settings)
    assert result.loss.shape == result.accuracy.shape == (2, 40)
    assert (result.loss[:, -1] < np.log(5) / 4).all()
    assert not result.diverged.any()
    for cell, parameters in zip([conv, pool], result.parameters, strict=True):
        assert sum(array.size for array in parameters.values()) == spd.count_parameters(cell, shape)
    again = spd.train_motifs([pool, conv], shape, dish, threads=1, **settings)
    assert np.array_equal(again.loss[::-1], result.loss)


def test_the_paper_s_shapes() -> None:
    cell = spd.Cell(["01", "00"], ["input", "output"])
    counts = [spd.count_parameters(cell, shape) for shape in (spd.MOTIF_A, spd.MOTIF_B, spd.MOTIF_C)]
    assert counts == [864 + 64 + 3 * (1024 + 64) + 330, 432 + 32 + (256 + 512 + 2048) + 2 * (16 + 32 + 64) + 650, 922]
