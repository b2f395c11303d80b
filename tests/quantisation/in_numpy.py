"""Rounding once more, in numpy and one group at a time: what the tests compare with."""

import numpy as np


def int8(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(codes, scales): a row's largest magnitude is 127 steps."""
    codes, scales = np.zeros(weight.shape, np.int64), np.ones(len(weight))
    for row, values in enumerate(weight):
        if np.abs(values).max() > 0:
            scales[row] = np.abs(values).max() / 127
        codes[row] = np.clip(np.rint(values / scales[row]), -127, 127)
    return codes, scales


def int4(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes, scales, zeros): 15 steps from a group's smallest weight to its largest; code 8 is its zero."""
    rows, columns = weight.shape
    codes = np.zeros(weight.shape, np.int64)
    scales, zeros = np.ones((rows, columns // 32)), np.zeros((rows, columns // 32))
    for row in range(rows):
        for group in range(columns // 32):
            values = weight[row, 32 * group : 32 * group + 32]
            least, most = values.min(), values.max()
            if most > least:
                scales[row, group] = (most - least) / 15
                zeros[row, group] = least + 8 * scales[row, group]
            else:
                zeros[row, group] = least
            steps = (values - zeros[row, group]) / scales[row, group]
            codes[row, 32 * group : 32 * group + 32] = np.clip(np.rint(steps), -8, 7) + 8
    return codes, scales, zeros


def int4_values(codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    values = np.zeros(codes.shape)
    for row, column in np.ndindex(*codes.shape):
        values[row, column] = (codes[row, column] - 8) * scales[row, column // 32] + zeros[row, column // 32]
    return values
