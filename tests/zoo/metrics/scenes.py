"""Random small scenes for hypothesis: blobs, speckle, empty label, empty prediction, all ignored, one pixel."""

import numpy as np
from hypothesis import strategies as st


@st.composite
def scenes(draw, *, largest=16):
    """Label uint8 (H, W) in {0, 1, 255}, prediction bool (H, W), pixel size (x, y) in metres."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    truth = random_mask(rng, shape, draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))).astype(np.uint8)
    predicted = random_mask(rng, shape, draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])))
    if draw(st.booleans()):
        predicted = np.roll(truth == 1, (1, 1), (0, 1)) ^ (rng.random(shape) < 0.05)
    ignored = draw(st.sampled_from([0.0, 0.0, 0.15, 1.0]))
    truth[rng.random(shape) < ignored] = 255
    return truth, predicted, draw(st.sampled_from([(1.0, 1.0), (2.0, 5.0), (0.3, 0.1)]))


def random_mask(rng, shape, share):
    """Rectangles that may touch, and speckle."""
    mask = rng.random(shape) < share * 0.1
    for _ in range(round(share * 8)):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        mask[y : y + rng.integers(1, 6), x : x + rng.integers(1, 6)] = True
    return mask | (share == 1)
