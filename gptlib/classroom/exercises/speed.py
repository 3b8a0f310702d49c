"""Chapter 9's exercises: orthogonalize a matrix, rotate by position, find positions that leak."""

import functools
import operator

import torch
from torch import nn

from gptlib.classroom.exercises._checking import Reader, Result, check
from gptlib.classroom.exercises._comparing import (
    Wrong,
    agree,
    close,
    combined,
    compare,
    finite,
    keeps_device,
    listed,
    randn,
    shown,
)

# orthogonalize ------------------------------------------------------------------------------------


def check_orthogonalize(orthogonalize) -> Result:
    """Check `orthogonalize(matrix, steps)`.

    It turns a matrix (m, n) into a matrix (m, n). First X is the matrix divided by its Frobenius
    norm, the root of the sum of its squares. Then X becomes 1.5 X − 0.5 X Xᵀ X, `steps` times.
    """
    return check(
        "orthogonalize",
        orthogonalize,
        _orthogonalize_properties,
        "the matrix is divided by its Frobenius norm, and each step brings its singular values "
        "closer to 1",
    )


def _right_orthogonalize(matrix, steps):
    U, s, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(steps):
        s = 1.5 * s - 0.5 * s ** 3
    return (U * s @ Vh).to(matrix.dtype)


def _orthogonalize_cases():
    def given(rows, steps):
        return {"matrix": torch.tensor(rows).double(), "steps": steps}

    def random(m, n, steps, seed, dtype=torch.float64, scale=1.0):
        return {"matrix": scale * randn(m, n, seed=seed, dtype=dtype), "steps": steps}

    # Without a division the numbers grow fast, so most cases have few steps.
    return [
        given([[3, 4]], 0),
        given([[3, 4]], 1),
        given([[1, -2], [2, 4]], 0),
        given([[1, -2], [2, 4]], 1),
        given([[1, -2], [2, 4]], 2),
        random(2, 3, 0, 1),
        random(3, 3, 1, 2),
        random(2, 3, 1, 3),
        random(4, 2, 2, 4),
        random(3, 3, 3, 5),
        random(4, 4, 2, 6, torch.float32),
        random(3, 5, 2, 7),
        random(3, 3, 12, 8, scale=0.2),
        random(4, 4, 3, 9, torch.float32),
        random(5, 3, 3, 10, torch.float32),
    ]


def _mistaken_orthogonalize(options):
    divide, count, step, finish = options

    def orthogonalize(matrix, steps):
        X = first = divide(matrix)
        for _ in range(count(steps)):
            X = step(X, first, matrix)
        return finish(X, matrix)

    return orthogonalize


FROBENIUS = "Divide by matrix.norm(), the root of the sum of all squares"

# What the matrix is divided by.
DIVISIONS = {
    "": lambda matrix: matrix / matrix.norm(),
    f"the matrix is not divided before the first step. {FROBENIUS}": lambda matrix: matrix,
    f"the matrix is divided by its largest entry. {FROBENIUS}":
        lambda matrix: matrix / matrix.max(),
    f"the matrix is divided by its largest absolute value. {FROBENIUS}":
        lambda matrix: matrix / matrix.abs().max(),
    f"the matrix is divided by the sum of its entries. {FROBENIUS}":
        lambda matrix: matrix / matrix.sum(),
    f"the matrix is divided by the sum of its absolute values. {FROBENIUS}":
        lambda matrix: matrix / matrix.abs().sum(),
    "each row is divided by its own norm. There is one norm for the whole matrix: matrix.norm()":
        lambda matrix: matrix / matrix.norm(dim=1, keepdim=True),
    "each column is divided by its own norm. There is one norm for the whole matrix: matrix.norm()":
        lambda matrix: matrix / matrix.norm(dim=0, keepdim=True),
    f"the matrix is divided by its spectral norm, the largest singular value. {FROBENIUS}":
        lambda matrix: matrix / torch.linalg.matrix_norm(matrix, 2),
    f"the matrix is divided by the sum of its singular values. {FROBENIUS}":
        lambda matrix: matrix / torch.linalg.matrix_norm(matrix, "nuc"),
    f"the root is missing: the matrix is divided by the sum of its squares. {FROBENIUS}":
        lambda matrix: matrix / matrix.square().sum(),
    f"the matrix is divided by the root of the mean of its squares. {FROBENIUS}":
        lambda matrix: matrix / matrix.square().mean().sqrt(),
    f"the matrix is divided by the number of its entries. {FROBENIUS}":
        lambda matrix: matrix / matrix.numel(),
    f"the matrix is divided by its standard deviation. {FROBENIUS}":
        lambda matrix: matrix / matrix.std(),
    f"the matrix is divided by the largest sum of absolute values in a row. {FROBENIUS}":
        lambda matrix: matrix / torch.linalg.matrix_norm(matrix, torch.inf),
    f"the matrix is divided by the largest sum of absolute values in a column. {FROBENIUS}":
        lambda matrix: matrix / torch.linalg.matrix_norm(matrix, 1),
    f"the matrix is divided by the norm of its first row. {FROBENIUS}":
        lambda matrix: matrix / matrix[0].norm(),
}

REPEAT = "Repeat the step `steps` times, with range(steps)"

# How many steps are done.
COUNTS = {
    "": lambda steps: steps,
    f"there is one step too few. {REPEAT}": lambda steps: max(0, steps - 1),
    f"there is one step too many. {REPEAT}": lambda steps: steps + 1,
    f"there is one step, whatever `steps` is. {REPEAT}": lambda steps: 1,
    "there is at most one step, or each step begins with the first X again. Do `steps` steps, each "
    "with the X of the step before":
        lambda steps: min(1, steps),
    f"there are always 5 steps, whatever `steps` is. {REPEAT}": lambda steps: 5,
    f"no step is done: the result is the divided matrix. {REPEAT}": lambda steps: 0,
    f"there are twice as many steps as there should be. {REPEAT}": lambda steps: 2 * steps,
}

STEP = "A step is X = 1.5 X − 0.5 X Xᵀ X"

# What a step does. It may read the present X, the divided matrix and the given matrix.
UPDATES = {
    "": lambda X, first, matrix: 1.5 * X - 0.5 * X @ X.mT @ X,
    f"the factors 1.5 and 0.5 are swapped. {STEP}":
        lambda X, first, matrix: 0.5 * X - 1.5 * X @ X.mT @ X,
    f"the product is added. It should be subtracted. {STEP}":
        lambda X, first, matrix: 1.5 * X + 0.5 * X @ X.mT @ X,
    f"both signs are wrong, so each step changes the sign of X. {STEP}":
        lambda X, first, matrix: 0.5 * X @ X.mT @ X - 1.5 * X,
    f"the factors are swapped and the signs too. {STEP}":
        lambda X, first, matrix: 1.5 * X @ X.mT @ X - 0.5 * X,
    f"the factor 0.5 of the product is missing. {STEP}":
        lambda X, first, matrix: 1.5 * X - X @ X.mT @ X,
    f"the factor 1.5 of X is missing. {STEP}": lambda X, first, matrix: X - 0.5 * X @ X.mT @ X,
    f"both factors, 1.5 and 0.5, are missing. {STEP}":
        lambda X, first, matrix: X - X @ X.mT @ X,
    f"the product is multiplied by 1.5 too. Its factor is 0.5. {STEP}":
        lambda X, first, matrix: 1.5 * (X - X @ X.mT @ X),
    f"X is multiplied by 0.5 too. Its factor is 1.5. {STEP}":
        lambda X, first, matrix: 0.5 * (X - X @ X.mT @ X),
    f"everything is twice as large as it should be: 3 X − X Xᵀ X. {STEP}":
        lambda X, first, matrix: 3 * X - X @ X.mT @ X,
    f"the factors are 2 and 1. {STEP}": lambda X, first, matrix: 2 * X - X @ X.mT @ X,
    f"only 1.5 X is computed. {STEP}": lambda X, first, matrix: 1.5 * X,
    f"1.5 X is missing: X becomes the product alone. {STEP}":
        lambda X, first, matrix: X @ X.mT @ X,
    f"1.5 X is missing: X becomes 0.5 X Xᵀ X. {STEP}":
        lambda X, first, matrix: 0.5 * X @ X.mT @ X,
    f"the product is Xᵀ X Xᵀ, the transpose of the right one. {STEP}":
        lambda X, first, matrix: 1.5 * X - 0.5 * X.mT @ X @ X.mT,
    f"the product is X X X, without a transpose. {STEP}":
        lambda X, first, matrix: 1.5 * X - 0.5 * X @ X @ X,
    f"the product is X X Xᵀ. The transpose is the second factor. {STEP}":
        lambda X, first, matrix: 1.5 * X - 0.5 * X @ X @ X.mT,
    f"the product is Xᵀ X X. The transpose is the second factor. {STEP}":
        lambda X, first, matrix: 1.5 * X - 0.5 * X.mT @ X @ X,
    f"the product is X Xᵀ. Its third factor, X, is missing. {STEP}":
        lambda X, first, matrix: 1.5 * X - 0.5 * X @ X.mT,
    f"the product is Xᵀ X. Its first factor, X, is missing. {STEP}":
        lambda X, first, matrix: 1.5 * X - 0.5 * X.mT @ X,
    f"every entry is cubed alone. X Xᵀ X is a product of matrices, with @. {STEP}":
        lambda X, first, matrix: 1.5 * X - 0.5 * X ** 3,
    f"the entries are multiplied with *. X Xᵀ X is a product of matrices, with @. {STEP}":
        lambda X, first, matrix: 1.5 * X - 0.5 * X * X.mT * X,
    "X is divided by its norm before each step. Divide once, before the loop":
        lambda X, first, matrix: _right_step(X / X.norm()),
    "X is divided by its norm after each step. Divide once, before the loop":
        lambda X, first, matrix: _right_step(X) / _right_step(X).norm(),
    f"each step begins with `matrix`, which is not divided. {STEP}, with the X of the step before":
        lambda X, first, matrix: _right_step(matrix),
    f"the factors of the step are those of Muon, with a third product. {STEP}":
        lambda X, first, matrix: _step_of_muon(X),
}


def _right_step(X):
    return UPDATES[""](X, None, None)


def _step_of_muon(X):
    A = X @ X.mT
    return 3.4445 * X - 4.7750 * A @ X + 2.0315 * A @ A @ X


def _singular_values(X):
    # PyTorch's library would print an error of its own for nan.
    if not X.isfinite().all():
        raise ValueError("no singular values")
    return torch.linalg.svdvals(X)


# What is returned.
RESULTS = {
    "": lambda X, matrix: X,
    "the result is X Xᵀ. Return X itself": lambda X, matrix: X @ X.mT,
    "the result is Xᵀ X. Return X itself": lambda X, matrix: X.mT @ X,
    "the result is transposed. Return X itself, (m, n)": lambda X, matrix: X.mT,
    "the result has only the signs of X. Return X itself": lambda X, matrix: X.sign(),
    "the result is multiplied by the matrix's norm at the end. Return X itself":
        lambda X, matrix: X * matrix.norm(),
    "the result is divided by its norm at the end. Divide once, before the loop":
        lambda X, matrix: X / X.norm(),
    "the result is divided by its largest singular value at the end. Return X itself":
        lambda X, matrix: X / _singular_values(X)[0],
    "the result has the wrong sign. Return X itself": lambda X, matrix: -X,
    "the result is the singular values of X. Return X itself":
        lambda X, matrix: _singular_values(X),
    "the result contains absolute values. Return X itself": lambda X, matrix: X.abs(),
    "the result is matrix − X. Return X itself":
        lambda X, matrix: matrix - X,
}


def _with_step(step):
    """Return the right function with another step: `step(X, first, matrix)`."""
    return _mistaken_orthogonalize([DIVISIONS[""], COUNTS[""], step, RESULTS[""]])


def _returned_from_the_loop(matrix, steps):
    if steps == 0:
        raise ValueError("a loop of 0 steps returns nothing")
    return _right_orthogonalize(matrix, 1)


def _polar(matrix, steps):
    U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U @ Vh


def _rows_by_qr(matrix, steps):
    return torch.linalg.qr(matrix.mT).Q.mT


def _columns_by_qr(matrix, steps):
    return torch.linalg.qr(matrix).Q


def _rows_by_gram_schmidt(matrix, steps):
    Q, R = torch.linalg.qr(matrix.mT)
    return (Q * R.diagonal().sign()).mT


def _columns_by_gram_schmidt(matrix, steps):
    Q, R = torch.linalg.qr(matrix)
    return Q * R.diagonal().sign()


QR = "the result comes from a QR decomposition, which treats the rows or columns one after the " \
    f"other. {STEP}"
FIRST_IN_PRODUCT = "the product reads the matrix that was there before the loop. All three " \
    f"factors are the X of the step before. {STEP}"
OLD_IN_SUM = "1.5 is multiplied by the matrix that was there before the loop, not by the X of " \
    f"the step before. {STEP}"
IDENTITY = f"the result is an identity matrix, whatever the matrix is. {STEP}"

ORTHOGONALIZE_MISTAKES = [
    ("the `return` stands inside of the loop, so there is only one step. Write it after the loop",
     _returned_from_the_loop),
    (f"every singular value is exactly 1, whatever `steps` is. Do `steps` steps. {STEP}", _polar),
    (QR, _rows_by_qr),
    (QR, _columns_by_qr),
    (QR, _rows_by_gram_schmidt),
    (QR, _columns_by_gram_schmidt),
    (f"the result has only the signs of the matrix. {STEP}", lambda matrix, steps: matrix.sign()),
    (IDENTITY, lambda matrix, steps: torch.eye(*matrix.shape)),
    (IDENTITY, lambda matrix, steps: torch.eye(len(matrix))),
    (IDENTITY, lambda matrix, steps: torch.eye(matrix.shape[1])),
    (f"the result is the given matrix, not changed. {FROBENIUS}, and then do the steps",
     lambda matrix, steps: matrix),
    (FIRST_IN_PRODUCT,
     _with_step(lambda X, first, matrix: 1.5 * X - 0.5 * first @ first.mT @ first)),
    (FIRST_IN_PRODUCT,
     _with_step(lambda X, first, matrix: 1.5 * X - 0.5 * matrix @ matrix.mT @ matrix)),
    (FIRST_IN_PRODUCT, _with_step(lambda X, first, matrix: 1.5 * X - 0.5 * X @ X.mT @ matrix)),
    (FIRST_IN_PRODUCT, _with_step(lambda X, first, matrix: 1.5 * X - 0.5 * matrix @ X.mT @ X)),
    (FIRST_IN_PRODUCT, _with_step(lambda X, first, matrix: 1.5 * X - 0.5 * X @ matrix.mT @ X)),
    (FIRST_IN_PRODUCT,
     _with_step(lambda X, first, matrix: 1.5 * X - 0.5 * X @ first.mT @ first)),
    (FIRST_IN_PRODUCT,
     _with_step(lambda X, first, matrix: 1.5 * X - 0.5 * first @ first.mT @ X)),
    (FIRST_IN_PRODUCT,
     _with_step(lambda X, first, matrix: 1.5 * X - 0.5 * X @ matrix.mT @ matrix)),
    (FIRST_IN_PRODUCT,
     _with_step(lambda X, first, matrix: 1.5 * X - 0.5 * matrix @ matrix.mT @ X)),
    (OLD_IN_SUM, _with_step(lambda X, first, matrix: 1.5 * first - 0.5 * X @ X.mT @ X)),
    (OLD_IN_SUM, _with_step(lambda X, first, matrix: 1.5 * matrix - 0.5 * X @ X.mT @ X)),
]


def _orthogonalize_properties(reader: Reader):
    cases = _orthogonalize_cases()
    mistakes = combined(_mistaken_orthogonalize, DIVISIONS, COUNTS, UPDATES, RESULTS)
    mistakes = [*ORTHOGONALIZE_MISTAKES, *mistakes]
    trials = compare(reader, _right_orthogonalize, cases, mistakes)
    for trial in trials:
        finite(trial, f"do the numbers grow with every step? {FROBENIUS}, before the loop.")
    for trial in trials:
        norm = trial.got.norm().item()
        if trial.given["steps"] == 0 and abs(norm - 1) > 1e-5:
            raise Wrong(
                "with steps = 0 the result should be the matrix divided by its Frobenius norm, and "
                f"have norm 1. Its norm is {norm:.4g}, for {listed(trial.given)}"
            )
    agree(trials)
    keeps_device(reader, cases)


# rotate -------------------------------------------------------------------------------------------


def check_rotate(rotate) -> Result:
    """Check `rotate(x)`.

    It turns x (T, D) with an even D into a tensor (T, D). Channels i and i + D/2 are the two
    coordinates of a point. At position t = 0, 1, …, T − 1 the point is rotated counter-clockwise by
    t · 1000^(−2i/D) radians, for i = 0, 1, …, D/2 − 1.
    """
    return check(
        "rotate",
        rotate,
        _rotate_properties,
        "each pair of channels is rotated by an angle that grows with the position, and the first "
        "pairs rotate fastest",
    )


def _right_rotate(x):
    T, D = x.shape
    half = D // 2
    result = torch.zeros_like(x)
    for t in range(T):
        for i in range(half):
            angle = torch.tensor(t * 1000 ** (-2 * i / D)).double()
            result[t, i] = x[t, i] * angle.cos() - x[t, i + half] * angle.sin()
            result[t, i + half] = x[t, i] * angle.sin() + x[t, i + half] * angle.cos()
    return result


def _rotate_cases():
    def random(T, D, seed, dtype=torch.float32):
        return {"x": randn(T, D, seed=seed, dtype=dtype)}

    return [
        {"x": torch.tensor([[1.0, 0.0], [1.0, 0.0]])},
        {"x": torch.tensor([[0.0, 2.0], [0.0, 2.0], [0.0, 2.0]])},
        {"x": torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0]])},
        random(1, 4, 1),
        random(3, 2, 2),
        random(4, 4, 3),
        random(5, 6, 4),
        random(3, 12, 5),
        random(9, 8, 6),
        # The angles of a right answer may be float32, so float64 is compared less exactly here.
        # Every mistake is much larger than this difference.
        random(7, 8, 7, torch.float64),
    ]


# How far the rounding of a float32 angle may move a right answer.
ROTATE_TOLERANCE = 1e-5


def _mistaken_rotate(options):
    speed, positions, (split, join), turn = options

    def rotate(x):
        T, D = x.shape
        i, t = torch.arange(D // 2).double(), torch.arange(T).double()
        angle = positions(t)[:, None] * speed(i, D)
        result = turn(*split(x.double()), angle.cos(), angle.sin())
        return join(*result).to(x.dtype)

    return rotate


ANGLE = "The angle at position t is t · 1000^(−2i/D)"

# The angle by which a pair rotates from one position to the next.
SPEEDS = {
    "": lambda i, D: 1000 ** (-2 * i / D),
    f"the base is 10 000. It should be 1000. {ANGLE}": lambda i, D: 10_000 ** (-2 * i / D),
    f"the base is 100. It should be 1000. {ANGLE}": lambda i, D: 100 ** (-2 * i / D),
    f"the base is e. It should be 1000. {ANGLE}": lambda i, D: (-2 * i / D).exp(),
    f"the base is 2. It should be 1000. {ANGLE}": lambda i, D: 2 ** (-2 * i / D),
    f"the exponent is positive. Its sign should be −. {ANGLE}": lambda i, D: 1000 ** (2 * i / D),
    f"the factor 2 of the exponent is missing. {ANGLE}": lambda i, D: 1000 ** (-i / D),
    f"the exponent is twice as large as it should be. Is 2i divided by D/2? {ANGLE}":
        lambda i, D: 1000 ** (-4 * i / D),
    f"the exponent is divided by D − 2. Divide it by D. {ANGLE}":
        lambda i, D: 1000 ** (-2 * i / max(1, D - 2)),
    f"the exponent is not divided by D. {ANGLE}": lambda i, D: 1000 ** (-2 * i),
    f"the exponent loses its decimals. Use / and not // to divide by D. {ANGLE}":
        lambda i, D: 1000 ** (-2 * i // D),
    f"1000 is multiplied by the exponent. Use a power, with **. {ANGLE}":
        lambda i, D: 1000 * (-2 * i / D),
    f"all pairs rotate by the same angle. The angle becomes smaller from pair to pair. {ANGLE}":
        lambda i, D: torch.ones_like(i),
    f"the pairs are counted in the reverse order. The first pair, i = 0, rotates fastest. {ANGLE}":
        lambda i, D: 1000 ** (-2 * i.flip(0) / D),
    f"i is counted from 1. The first pair has i = 0. {ANGLE}":
        lambda i, D: 1000 ** (-2 * (i + 1) / D),
    f"the angle is treated as degrees. It is in radians already. {ANGLE}":
        lambda i, D: 1000 ** (-2 * i / D) * torch.pi / 180,
    f"the angle is turned into degrees, but cos and sin read radians. {ANGLE}":
        lambda i, D: 1000 ** (-2 * i / D) * 180 / torch.pi,
    f"the angle is multiplied by 2π. It is in radians already. {ANGLE}":
        lambda i, D: 1000 ** (-2 * i / D) * 2 * torch.pi,
    f"the angle is multiplied by π. It is in radians already. {ANGLE}":
        lambda i, D: 1000 ** (-2 * i / D) * torch.pi,
    f"the angle is t · (1 − 2i/D). Use a power of 1000. {ANGLE}":
        lambda i, D: 1 - 2 * i / D,
}

# The positions.
POSITIONS = {
    "": lambda t: t,
    f"the positions are counted from 1. The first position is t = 0, and stays as it is. {ANGLE}":
        lambda t: t + 1,
    f"the positions are counted from the end. The first position is t = 0. {ANGLE}":
        lambda t: t.flip(0),
    f"all positions rotate by the angle of position 1. {ANGLE}": lambda t: torch.ones_like(t),
    f"all positions rotate by the angle of the last position. {ANGLE}":
        lambda t: torch.full_like(t, len(t) - 1),
    f"all positions rotate by the angle of position T. {ANGLE}":
        lambda t: torch.full_like(t, len(t)),
    f"the position is divided by T. {ANGLE}": lambda t: t / len(t),
    f"the position is divided by T − 1. {ANGLE}": lambda t: t / max(1, len(t) - 1),
    f"the angles of all positions up to t are added up. {ANGLE}": lambda t: t.cumsum(0),
    f"the angle is twice as large as it should be. {ANGLE}": lambda t: 2 * t,
    f"the angle is half as large as it should be. {ANGLE}": lambda t: t / 2,
}


def _halves(x):
    return x.chunk(2, dim=1)


def _neighbours(x):
    return x[:, ::2], x[:, 1::2]


def _join_halves(first, second):
    return torch.cat([first, second], dim=1)


def _join_neighbours(first, second):
    return torch.stack([first, second], dim=2).flatten(1)


PARTNERS = "Channel i belongs to channel i + D/2"

# Which two channels are a point, and where its coordinates are put.
CHANNELS = {
    "": (_halves, _join_halves),
    f"channels 2i and 2i + 1 are rotated together. {PARTNERS}": (_neighbours, _join_neighbours),
    "the result has the two coordinates of each point side by side. Put all first coordinates "
    "into the first half, and all second coordinates into the second half":
        (_halves, _join_neighbours),
    f"channels 2i and 2i + 1 are rotated together, and then put into two halves. {PARTNERS}":
        (_neighbours, _join_halves),
    f"the first and the last channel are rotated together. {PARTNERS}":
        (lambda x: (x[:, :x.shape[1] // 2], x.flip(1)[:, :x.shape[1] // 2]),
         lambda first, second: _join_halves(first, second.flip(1))),
    "the two halves are exchanged before the rotation. The first half holds the first coordinates":
        (lambda x: _halves(x)[::-1], _join_halves),
    "the two halves of the result are exchanged. The rotated first coordinates come first":
        (_halves, lambda first, second: _join_halves(second, first)),
    "only the rotated first coordinates are returned. Add the second half, with dim=1":
        (_halves, lambda first, second: first),
    "only the rotated second coordinates are returned. They belong after the first half":
        (_halves, lambda first, second: second),
    "the two halves are put below each other. Put them side by side, with dim=1":
        (_halves, lambda first, second: torch.cat([first, second])),
    "the two halves have an axis of their own. Put them side by side, with torch.cat and dim=1":
        (_halves, lambda first, second: torch.stack([first, second])),
    "the coordinates have an axis of their own at the end. Put the two halves side by side, with "
    "torch.cat and dim=1":
        (_halves, lambda first, second: torch.stack([first, second], dim=-1)),
    "the two halves have an axis of their own in the middle. Put them side by side, with torch.cat "
    "and dim=1":
        (_halves, lambda first, second: torch.stack([first, second], dim=1)),
    "the two halves are added. Put them side by side, with torch.cat and dim=1":
        (_halves, lambda first, second: first + second),
    "the result is transposed. Its shape should be (T, D)":
        (_halves, lambda first, second: _join_halves(first, second).mT),
}

TURN = "The new point is (first · cos − second · sin, first · sin + second · cos)"

# How a point (a, b) is rotated by an angle with cosine c and sine s.
TURNS = {
    "": lambda a, b, c, s: (a * c - b * s, a * s + b * c),
    f"the points are rotated clockwise. Change both signs of the sine. {TURN}":
        lambda a, b, c, s: (a * c + b * s, b * c - a * s),
    f"cos and sin are exchanged. {TURN}": lambda a, b, c, s: (a * s - b * c, a * c + b * s),
    f"both coordinates are sums. The first one is a difference. {TURN}":
        lambda a, b, c, s: (a * c + b * s, a * s + b * c),
    f"both coordinates are differences, cos minus sin. The second one is a sum. {TURN}":
        lambda a, b, c, s: (a * c - b * s, b * c - a * s),
    f"both coordinates are differences. The second one is a sum. {TURN}":
        lambda a, b, c, s: (a * c - b * s, a * s - b * c),
    f"only the first half is rotated. The second coordinates change too. {TURN}":
        lambda a, b, c, s: (a * c - b * s, b),
    f"only the second half is rotated. The first coordinates change too. {TURN}":
        lambda a, b, c, s: (a, a * s + b * c),
    f"the second coordinate uses the new first one. It should use the old one. {TURN}":
        lambda a, b, c, s: (a * c - b * s, (a * c - b * s) * s + b * c),
    f"the first coordinate uses the new second one. It should use the old one. {TURN}":
        lambda a, b, c, s: (a * c - (a * s + b * c) * s, a * s + b * c),
    f"every number is multiplied by the cosine, and nothing else. {TURN}":
        lambda a, b, c, s: (a * c, b * c),
    f"every number is multiplied by the sine, and nothing else. {TURN}":
        lambda a, b, c, s: (a * s, b * s),
    f"the first half is multiplied by the cosine and the second half by the sine. {TURN}":
        lambda a, b, c, s: (a * c, b * s),
    f"only the first coordinates are used, and the second ones are lost. {TURN}":
        lambda a, b, c, s: (a * c, a * s),
    f"every number is multiplied by cos + sin. The sine belongs to the other half. {TURN}":
        lambda a, b, c, s: (a * c + a * s, b * c + b * s),
    f"every number is multiplied by cos − sin. The sine belongs to the other half. {TURN}":
        lambda a, b, c, s: (a * c - a * s, b * c - b * s),
    f"in the first half the sine belongs to the wrong coordinate. {TURN}":
        lambda a, b, c, s: (a * c - a * s, a * s + b * c),
    f"in the second half the sine belongs to the wrong coordinate. {TURN}":
        lambda a, b, c, s: (a * c - b * s, b * s + b * c),
    f"cosine and sine are added to x. Rotate instead of adding. {TURN}":
        lambda a, b, c, s: (a + c, b + s),
    f"sine and cosine are added to x. Rotate instead of adding. {TURN}":
        lambda a, b, c, s: (a + s, b + c),
    f"the rotated point is added to x. Return the rotated point alone. {TURN}":
        lambda a, b, c, s: (a + a * c - b * s, b + a * s + b * c),
    f"the result has only the cosine and the sine of the angles, without x. {TURN}":
        lambda a, b, c, s: (c, s),
    f"nothing is rotated: the result is x. {TURN}": lambda a, b, c, s: (a, b),
}


def _turned(x, angle):
    """Return x (T, D), rotated by the angles (T, D/2)."""
    first, second = _halves(x.double())
    return _join_halves(*TURNS[""](first, second, angle.cos(), angle.sin())).to(x.dtype)


def _position_and_pair_exchanged(x):
    T, D = x.shape
    return _turned(x, torch.arange(D // 2) * 1000 ** (-2 * torch.arange(T)[:, None].double() / D))


def _pair_times_speed(x):
    T, D = x.shape
    i = torch.arange(D // 2).double()
    return _turned(x, (i * 1000 ** (-2 * i / D)).expand(T, -1))


def _pairs_without_positions(x):
    T, D = x.shape
    return _turned(x, torch.arange(D // 2).double().expand(T, -1))


def _added_angle(x):
    T, D = x.shape
    return _turned(x, torch.arange(T)[:, None] + 1000 ** (-2 * torch.arange(D // 2).double() / D))


def _power_of_the_product(x):
    T, D = x.shape
    t, i = torch.arange(T)[:, None].double(), torch.arange(D // 2).double()
    return _turned(x, (t * 1000) ** (-2 * i / D))


ROTATE_MISTAKES = [
    (f"position t and pair i are exchanged in the angle. {ANGLE}", _position_and_pair_exchanged),
    (f"the angle is i · 1000^(−2i/D). Multiply by the position t, not by i. {ANGLE}",
     _pair_times_speed),
    (f"the angle is i at every position. {ANGLE}", _pairs_without_positions),
    (f"t and 1000^(−2i/D) are added. Multiply them. {ANGLE}", _added_angle),
    (f"the position is inside of the power. Take the power first, and then multiply. {ANGLE}",
     _power_of_the_product),
]


def _rotate_properties(reader: Reader):
    cases = _rotate_cases()
    mistakes = combined(_mistaken_rotate, SPEEDS, POSITIONS, CHANNELS, TURNS)
    trials = compare(reader, _right_rotate, cases, [*ROTATE_MISTAKES, *mistakes])
    for trial in trials:
        finite(trial, f"is something divided by 0? {ANGLE}.")
    for trial in trials:
        _stands_still_at_0(trial)
    for trial in trials:
        _keeps_lengths(trial)
    agree(trials, ROTATE_TOLERANCE)


def _stands_still_at_0(trial):
    x, got = trial.given["x"], trial.got
    if not close(got[0], x[0], ROTATE_TOLERANCE):
        raise Wrong(
            "position 0 rotates by the angle 0, so its row should stay as it is. It was "
            f"{shown(x[0])} and became {shown(got[0])}. {ANGLE}"
        )


def _keeps_lengths(trial):
    x, got = trial.given["x"], trial.got
    before, after = (torch.hypot(*_halves(rows)) for rows in (x, got))
    for t in range(len(x)):
        for i in range(x.shape[1] // 2):
            if not close(after[t, i], before[t, i], ROTATE_TOLERANCE):
                raise Wrong(
                    "a rotation keeps the length of every point. At position "
                    f"{t} the point of channels {i} and {i + x.shape[1] // 2} had length "
                    f"{before[t, i]:.4g}, and now it has length {after[t, i]:.4g}. {TURN}"
                )


# leaking_positions --------------------------------------------------------------------------------


def check_leaking_positions(leaking_positions) -> Result:
    """Check `leaking_positions(model, idx)`.

    The model turns tokens (1, T) into logits (1, T, V), and idx is (1, T). The result is the list
    of the positions, ascending from 0, whose logits change if one later token is replaced by
    another token.
    """
    return check(
        "leaking_positions",
        leaking_positions,
        _leaking_properties,
        "each later token is replaced once, and every position is found whose logits change",
    )


def _next_position(T):
    return torch.ones(T, T).triu(1).tril(1)


def _every_third(T):
    return _next_position(T) * (torch.arange(T) % 3 == 0)[:, None]


def _single(*pairs):
    """Return the weights of these pairs (position, later token). −1 is the last token."""
    def weights(T):
        matrix = torch.zeros(T, T)
        for t, p in pairs:
            matrix[t, p % T] = 1
        return matrix
    return weights


def _difference(T):
    matrix = torch.zeros(T, T)
    matrix[1, 3], matrix[1, 4] = 1, -1
    return matrix


# How much each position sees of each later token, (T, T), by what the model does.
VIEWS = {
    "sees no later token": lambda T: torch.zeros(T, T),
    "sees the next token": _next_position,
    "sees the next token at every third position": _every_third,
    "sees all tokens": lambda T: torch.ones(T, T),
    "position 0 sees the last token": _single((0, -1)),
    "position 1 sees token 4": _single((1, 4)),
    "position 1 sees token 3 minus token 4": _difference,
    "the last position but one sees the last token": _single((-2, -1)),
    "position 3 sees token 4, and position 0 sees the last token": _single((3, 4), (0, -1)),
    "divides by T and sees no later token": lambda T: torch.zeros(T, T),
}
V = 8

# What a later token, 0 to V − 1, adds to the logits.
TOKENS = torch.arange(V).float()
EFFECTS = {
    # Sometimes changes which logit is the largest.
    "much": ((TOKENS + 1) / 2).diag(),
    # Changes neither the first logit nor the sum, and hardly ever changes which one is the largest.
    "little": (TOKENS[:, None] + 1) / 128 * torch.tensor([0, 1, -1, 2, -2, 3, -4, 1]),
    # Changes all logits by the same number, and so changes no probability.
    "the same for all logits": (V - TOKENS)[:, None].expand(V, V) / 4,
}


class ToyModel(nn.Module):
    """Return logits (B, T, V) from tokens (B, T).

    Each position sees itself and all positions before it. `view` says what else it sees, and
    `effect` says how that changes the logits. Students can build the model of a message again:
    `ToyModel("sees the next token", "little")`. The logits have no rounding errors.
    """

    def __init__(self, view, effect):
        super().__init__()
        self.view, self.effect = view, effect
        # Row v is what token v adds to the logits of its own and all later positions.
        self.past = (3 * TOKENS[:, None] + 5 * TOKENS) % V / 4

    def forward(self, idx):
        if not isinstance(idx, torch.Tensor) or idx.ndim != 2 or not idx.numel():
            is_tensor = isinstance(idx, torch.Tensor)
            got = f"shape {tuple(idx.shape)}" if is_tensor else type(idx).__name__
            raise Wrong(f"the model was given {got}, but it reads tokens of shape (1, T)")
        if idx.is_floating_point() or idx.min() < 0 or idx.max() >= V:
            raise Wrong(
                f"the model was given {shown(idx)}, but its tokens are the integers 0 to {V - 1}. "
                "(token + 1) % V is always another token of the vocabulary"
            )
        T = idx.shape[1]
        past = torch.ones(T, T).tril() + 7 * torch.eye(T)
        logits = past @ self.past[idx]
        logits = logits + VIEWS[self.view](T).triu(1) @ EFFECTS[self.effect][idx]
        return logits / T if self.view.startswith("divides") else logits

    def __repr__(self):
        return f"{type(self).__name__}{self.view, self.effect} of {type(self).__module__}"


def _leaking_cases():
    def case(view, effect, *tokens):
        return {"model": ToyModel(view, effect), "idx": torch.tensor([tokens])}

    return [
        case("sees no later token", "little", 3, 0),
        case("sees the next token", "much", 3, 0),
        case("sees the next token", "little", 2, 7, 0, 5),
        case("sees all tokens", "much", 6),
        case("sees all tokens", "little", 1, 7, 0, 4),
        case("sees no later token", "much", 5, 0, 7, 2, 1),
        case("the last position but one sees the last token", "much", 4, 7, 1, 0),
        case("position 0 sees the last token", "little", 4, 7, 1, 0, 0),
        case("position 0 sees the last token", "the same for all logits", 2, 5, 6),
        case("position 0 sees the last token", "the same for all logits", 6, 2, 7),
        case("sees the next token at every third position", "much", 1, 0, 3, 6, 7, 2, 5, 4),
        case("sees the next token at every third position", "little", 7, 1, 4, 4, 2, 2, 0),
        case("position 1 sees token 4", "much", 3, 1, 6, 2, 1, 7, 5),
        # Logit 0 is the largest one after token 5.
        case("position 1 sees token 4", "little", 0, 5, 7, 7, 0, 3),
        case("position 1 sees token 3 minus token 4", "little", 2, 0, 5, 3, 3, 6),
        case("position 3 sees token 4, and position 0 sees the last token", "much",
             1, 3, 6, 5, 7, 2, 0),
        case("divides by T and sees no later token", "much", 4, 6, 2, 7),
        case("sees the next token", "the same for all logits", 7, 3, 6, 2, 5),
        case("sees all tokens", "much", 5, 3, 4, 0, 7, 1, 3, 5, 7, 6),
    ]


# Answers are compared as tensors of this length.
MAX_LENGTH = 80


def _positions(answer):
    """Return a list of positions as a tensor: their number, the positions, and −1 at the end."""
    if isinstance(answer, torch.Tensor):
        raise Wrong("the function returns a Tensor, but it should return a list of positions. "
                    "`.tolist()` makes a list of it")
    if isinstance(answer, set):
        raise Wrong("the function returns a set, which has no order. Return a list in ascending "
                    "order: sorted(…)")
    if not isinstance(answer, (list, tuple)):
        raise Wrong(f"the function returns a value of type {type(answer).__name__}, but it should "
                    "return a list of positions")
    positions = [_position(element) for element in answer]
    padding = [-1] * (MAX_LENGTH - len(positions))
    return torch.tensor([len(positions), *positions[:MAX_LENGTH], *padding])


def _position(element):
    """Return an element of the list as an integer."""
    if isinstance(element, bool):
        raise Wrong("the list contains True or False. It should contain the numbers of the "
                    "positions that leak, such as [0, 2]")
    try:
        position = operator.index(element)
    except TypeError:
        raise Wrong(f"the list contains an element of type {type(element).__name__}. It should "
                    "contain one integer for each position that leaks, such as [0, 2]") from None
    if abs(position) > 1000:
        raise Wrong(f"the list contains {position}. Positions go from 0 to T − 1")
    return position


def _as_list(tensor):
    return tensor[1:][:tensor[0]].tolist()


def _right_list(model, idx):
    """Try all other tokens at all later positions."""
    before, T = model(idx), idx.shape[1]
    leaks = set()
    for p in range(T):
        for token in range(V):
            changed = idx.clone()
            changed[0, p] = token
            after = model(changed)
            leaks |= {t for t in range(p) if not torch.equal(after[0, t], before[0, t])}
    return sorted(leaks)


def _right_leaking(model, idx):
    return _positions(_right_list(model, idx))


def _mistaken_leaking(options):
    tries, replace, differ, result = options

    def leaking_positions(model, idx):
        T = idx.shape[1]
        tokens = tuple(idx[0].tolist())
        differs = _differences(model.view, model.effect, tokens, replace, differ)
        pairs = [(t, p) for p in range(T) for t in range(T) if tries(t, p, T) and differs[p][t]]
        return _positions(result(pairs, T))

    return leaking_positions


@functools.cache
def _differences(view, effect, tokens, replace, differ):
    """Return for each replaced position p and each position t whether the logits of t differ."""
    model, idx = ToyModel(view, effect), torch.tensor([tokens])
    # Row p of the batch has a change at position p.
    changed = torch.cat([replace(idx, p) for p in range(len(tokens))])
    return differ(model(idx), model(changed)).tolist()


LATER = "Position t leaks only if a token after it, p > t, changes its logits"
TRY_ALL = "Try every later position p > t"

# Which positions t are looked at when token p is replaced.
TRIES = {
    "": lambda t, p, T: p > t,
    f"only the next token is replaced. A leak may come from a token farther away. {TRY_ALL}":
        lambda t, p, T: p == t + 1,
    f"only the last token is replaced. A leak may come from any later token. {TRY_ALL}":
        lambda t, p, T: p == T - 1 and t < p,
    f"the last token is never replaced. {TRY_ALL}, up to T − 1": lambda t, p, T: t < p < T - 1,
    f"the next token is never replaced. {TRY_ALL}, from t + 1 on": lambda t, p, T: p > t + 1,
    f"a position counts when its own token changes its logits. {LATER}": lambda t, p, T: p >= t,
    f"a position counts when its own or an earlier token changes its logits. {LATER}":
        lambda t, p, T: p != t,
    f"the tokens before a position are replaced, and not those after it. {LATER}":
        lambda t, p, T: p < t,
    "only position 0 is looked at. Look at every position t":
        lambda t, p, T: p > t and t == 0,
    "position 0 is not looked at. Begin with t = 0": lambda t, p, T: p > t and t > 0,
    "only the position just before the last one is looked at. Look at every position t":
        lambda t, p, T: p > t and t == T - 2,
    "the position just before the last one is not looked at. Look at every position t":
        lambda t, p, T: p > t and t < T - 2,
}


def _replaced(token):
    """Return a function that replaces the token at position p by `token(old)`."""
    def replace(idx, p):
        changed = idx.clone()
        changed[0, p] = token(idx[0, p])
        return changed
    return replace


def _all_up_to(idx, p):
    changed = idx.clone()
    changed[0, 1:p + 1] = (idx[0, 1:p + 1] + 1) % V
    return changed


def _all_up_to_from_0(idx, p):
    changed = idx.clone()
    changed[0, :p + 1] = (idx[0, :p + 1] + 1) % V
    return changed


PILE_UP = "the changes pile up, or logits are compared with those of the change before. Begin " \
    "with a new idx.clone() for each position p, and compare with the logits of idx."
ANOTHER = "Use another token each time, such as (token + 1) % V"

# How the token at position p is replaced.
REPLACEMENTS = {
    "": _replaced(lambda old: (old + 1) % V),
    f"a token 0 is replaced by token 0, so nothing changes. {ANOTHER}": _replaced(lambda old: 0),
    f"a token V − 1 is replaced by token V − 1, so nothing changes. {ANOTHER}":
        _replaced(lambda old: V - 1),
    f"a token 1 is replaced by token 1, so nothing changes. {ANOTHER}": _replaced(lambda old: 1),
    PILE_UP: _all_up_to,
}

ANY_LOGIT = "A position leaks if any of its logits changes"

# Which positions have other logits than before: (1, T, V) and (T, T, V) become (T, T).
COMPARISONS = {
    "": lambda before, after: (after != before).any(-1),
    f"only the most probable tokens are compared. {ANY_LOGIT}. Compare all logits":
        lambda before, after: after.argmax(-1) != before.argmax(-1),
    f"only the first logit is compared. {ANY_LOGIT}. Compare all logits":
        lambda before, after: after[..., 0] != before[..., 0],
    f"only the last logit is compared. {ANY_LOGIT}. Compare all logits":
        lambda before, after: after[..., -1] != before[..., -1],
    f"only the largest logit is compared. {ANY_LOGIT}. Compare all logits":
        lambda before, after: after.amax(-1) != before.amax(-1),
    f"only the sum of the logits is compared. Changes may cancel each other in it. {ANY_LOGIT}. "
    "Compare all logits":
        lambda before, after: (after - before).sum(-1) != 0,
    f"only logits that become larger are found. {ANY_LOGIT}. Take the absolute value of the "
    "difference":
        lambda before, after: (after > before).any(-1),
    f"only logits that become smaller are found. {ANY_LOGIT}. Take the absolute value of the "
    "difference":
        lambda before, after: (after < before).any(-1),
    f"a position is found only if all of its logits change. {ANY_LOGIT}. Use any, and not all":
        lambda before, after: (after != before).all(-1),
    "probabilities are compared. They stay the same if all logits grow by the same number. "
    f"{ANY_LOGIT}":
        lambda before, after:
            (after.softmax(-1) - before.softmax(-1)).abs().amax(-1) > 1e-9,
    f"the comparison is the wrong way round. {ANY_LOGIT}":
        lambda before, after: (after == before).all(-1),
}

EACH_ONCE = "Return every position once"

# What is returned of the pairs (t, p): the logits of position t change with token p.
LISTS = {
    "": lambda pairs, T: sorted({t for t, p in pairs}),
    "the list contains the positions whose token was replaced. Return the positions t whose "
    "logits change, not p":
        lambda pairs, T: sorted({p for t, p in pairs}),
    "the positions are counted from 1. The first position is 0":
        lambda pairs, T: sorted({t + 1 for t, p in pairs}),
    "the list contains the positions that do not leak. Return those that leak":
        lambda pairs, T: sorted(set(range(T)) - {t for t, p in pairs}),
    "the positions are in descending order. Return them in ascending order, with sorted":
        lambda pairs, T: sorted({t for t, p in pairs}, reverse=True),
    f"a position is in the list once for each later token that changes it. {EACH_ONCE}":
        lambda pairs, T: sorted(t for t, p in pairs),
    f"a position is in the list once for each later token that changes it, and the list is not in "
    f"ascending order. {EACH_ONCE}, with sorted(set(…))":
        lambda pairs, T: [t for t, p in pairs],
    "the positions are in the order in which they were found. Return them in ascending order, with "
    "sorted":
        lambda pairs, T: list(dict.fromkeys(t for t, p in pairs)),
    "the list contains the replaced positions, some of them more than once. Return the positions "
    "t whose logits change, not p":
        lambda pairs, T: [p for t, p in pairs],
    "the list contains only the first position that leaks. Return all of them":
        lambda pairs, T: sorted({t for t, p in pairs})[:1],
    "the list contains only the last position that leaks. Return all of them":
        lambda pairs, T: sorted({t for t, p in pairs})[-1:],
    "if one position leaks, the list contains all positions. Return only those that leak":
        lambda pairs, T: list(range(T)) if pairs else [],
    "if one position leaks, the list contains all positions but the last. Return only those that "
    "leak":
        lambda pairs, T: list(range(T - 1)) if pairs else [],
    "the list contains one number, how many positions leak. Return the positions":
        lambda pairs, T: [len({t for t, p in pairs})],
    "the list has a 0 or a 1 for each position. Return the positions that leak":
        lambda pairs, T: [int(t in {t for t, p in pairs}) for t in range(T)],
    "the list is always empty. Position t leaks if a token after it, p > t, changes its logits":
        lambda pairs, T: [],
}


def _without_the_tokens_after(model, idx):
    T, before = idx.shape[1], model(idx)
    return _positions([
        t for t in range(T) if not torch.equal(model(idx[:, :t + 1])[0, t], before[0, t])
    ])


def _without_one_token(model, idx):
    T, before, leaks = idx.shape[1], model(idx), set()
    for p in range(1, T):
        after = model(torch.cat([idx[:, :p], idx[:, p + 1:]], dim=1))
        leaks |= {t for t in range(p) if not torch.equal(after[0, t], before[0, t])}
    return _positions(sorted(leaks))


def _with_all_later_tokens(token):
    def leaking_positions(model, idx):
        T, before, leaks = idx.shape[1], model(idx), []
        for t in range(T):
            changed = idx.clone()
            changed[0, t + 1:] = token(idx[0, t + 1:])
            if not torch.equal(model(changed)[0, t], before[0, t]):
                leaks.append(t)
        return _positions(leaks)
    return leaking_positions


def _compared_with_the_change_before(model, idx):
    T, before, leaks = idx.shape[1], model(idx), set()
    for p in range(1, T):
        after = model(REPLACEMENTS[""](idx, p))
        leaks |= {t for t in range(p) if not torch.equal(after[0, t], before[0, t])}
        before = after
    return _positions(sorted(leaks))


TOGETHER = "all later tokens are replaced together, so two changes can cancel each other. " \
    "Replace one token at a time"

LEAKING_MISTAKES = [
    ("the tokens after position t are removed. A model may also use the number of tokens. Replace "
     "a later token by another one instead",
     _without_the_tokens_after),
    ("a later token is removed. A model may also use the number of tokens. Replace a later token "
     "by another one instead",
     _without_one_token),
    (TOGETHER, _with_all_later_tokens(lambda old: (old + 1) % V)),
    (TOGETHER, _with_all_later_tokens(lambda old: (old - 1) % V)),
    (TOGETHER, _with_all_later_tokens(torch.zeros_like)),
    (PILE_UP, _mistaken_leaking([TRIES[""], _all_up_to_from_0, COMPARISONS[""], LISTS[""]])),
    (PILE_UP, _compared_with_the_change_before),
]


def _leaking_properties(reader: Reader):
    cases = _leaking_cases()
    mistakes = combined(_mistaken_leaking, TRIES, REPLACEMENTS, COMPARISONS, LISTS)
    trials = compare(
        reader, _right_leaking, cases, [*LEAKING_MISTAKES, *mistakes], to_tensor=_positions
    )
    for trial in trials:
        _lists_the_right_positions(trial)


def _lists_the_right_positions(trial):
    got, expected = _as_list(trial.got), _as_list(trial.expected)
    if got == expected:
        return
    example = (
        f"For {listed(trial.given)} the function returns {got}, but {expected} is right"
    )
    if sorted(set(got)) == expected:
        raise Wrong(f"the list should have each position once, in ascending order. {example}")
    T = trial.given["idx"].shape[1]
    for t in got:
        if t == T - 1:
            raise Wrong(f"no token comes after the last position, so it cannot leak. {example}")
        if t not in range(T):
            raise Wrong(f"there is no position {t}. Positions go from 0 to T − 1. {example}")
        if t not in expected:
            raise Wrong(f"position {t} does not leak: no later token changes its logits. {example}")
    missing = min(set(expected) - set(got))
    raise Wrong(f"position {missing} leaks: a later token changes its logits. {example}")
