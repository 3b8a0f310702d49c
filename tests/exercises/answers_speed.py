"""Chapter 9: right answers, and wrong answers with words that the verdict must contain."""

import math

import torch
from collecting import Answers

WRONG, RIGHT = Answers(), Answers()


# orthogonalize ------------------------------------------------------------------------------------

def step(X):
    return 1.5 * X - 0.5 * X @ X.T @ X


def stepped(X, steps, update=step):
    for _ in range(steps):
        X = update(X)
    return X


def divided(matrix):
    return matrix / matrix.norm()


@RIGHT.to("orthogonalize")
def by_singular_values(matrix, steps):
    U, s, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U @ stepped(s / s.norm(), steps, lambda s: (3 * s - s ** 3) / 2).diag() @ Vh


@RIGHT.to("orthogonalize")
def with_the_smaller_product(matrix, steps):
    m, n = matrix.shape
    X = (matrix.T if m > n else matrix) / torch.linalg.matrix_norm(matrix)
    for _ in range(steps):
        A = X @ X.T
        X = 1.5 * X - 0.5 * A @ X
    return X.T if m > n else X


@RIGHT.to("orthogonalize")
def by_calling_itself(matrix, steps):
    if steps == 0:
        return matrix / matrix.pow(2).sum().sqrt()
    return step(by_calling_itself(matrix, steps - 1))


@RIGHT.to("orthogonalize")
def with_a_copy_in_place(matrix, steps):
    X = matrix.clone()
    X /= sum(x * x for row in matrix.tolist() for x in row) ** 0.5
    while steps > 0:
        X -= 0.5 * (X @ (X.T @ X) - X)
        steps -= 1
    return X


@RIGHT.to("orthogonalize")
def with_a_square_matrix_of_factors(matrix, steps):
    X = torch.nn.functional.normalize(matrix.flatten(), dim=0).view_as(matrix)
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    for _ in range(steps):
        X = (1.5 * eye - X @ X.T / 2) @ X
    return X


@WRONG.to("orthogonalize", "not divided", "matrix.norm()")
def no_division(matrix, steps):
    return stepped(matrix, steps)


@WRONG.to("orthogonalize", "divided by its largest entry")
def divided_by_the_largest(matrix, steps):
    return stepped(matrix / matrix.max(), steps)


@WRONG.to("orthogonalize", "largest absolute value")
def divided_by_the_largest_size(matrix, steps):
    return stepped(matrix / matrix.abs().amax(), steps)


@WRONG.to("orthogonalize", "sum of its entries")
def divided_by_the_sum(matrix, steps):
    return stepped(matrix / matrix.sum(), steps)


@WRONG.to("orthogonalize", "sum of its absolute values")
def divided_by_the_sum_of_sizes(matrix, steps):
    return stepped(matrix / matrix.abs().sum(), steps)


@WRONG.to("orthogonalize", "each row", "whole matrix")
def rows_divided(matrix, steps):
    return stepped(torch.nn.functional.normalize(matrix), steps)


@WRONG.to("orthogonalize", "each column", "whole matrix")
def columns_divided(matrix, steps):
    return stepped(torch.nn.functional.normalize(matrix, dim=0), steps)


@WRONG.to("orthogonalize", "spectral norm")
def divided_by_the_spectral_norm(matrix, steps):
    return stepped(matrix / torch.linalg.norm(matrix, ord=2), steps)


@WRONG.to("orthogonalize", "root is missing")
def root_forgotten(matrix, steps):
    return stepped(matrix / (matrix * matrix).sum(), steps)


@WRONG.to("orthogonalize", "root of the mean")
def divided_by_rms(matrix, steps):
    return stepped(matrix / matrix.pow(2).mean() ** 0.5, steps)


@WRONG.to("orthogonalize", "extra 1e-8")
def small_number_added(matrix, steps):
    return stepped(matrix / (matrix.norm() + 1e-7), steps)


@WRONG.to("orthogonalize", "swapped", "1.5 X − 0.5 X Xᵀ X")
def factors_swapped(matrix, steps):
    return stepped(divided(matrix), steps, lambda X: 0.5 * X - 1.5 * X @ X.T @ X)


@WRONG.to("orthogonalize", "subtracted")
def plus(matrix, steps):
    return stepped(divided(matrix), steps, lambda X: 1.5 * X + 0.5 * X @ X.T @ X)


@WRONG.to("orthogonalize", "both signs")
def sign_changes(matrix, steps):
    return stepped(divided(matrix), steps, lambda X: 0.5 * X @ X.T @ X - 1.5 * X)


@WRONG.to("orthogonalize", "factor 0.5", "missing")
def without_one_half(matrix, steps):
    return stepped(divided(matrix), steps, lambda X: 1.5 * X - X @ X.T @ X)


@WRONG.to("orthogonalize", "factor 1.5", "missing")
def without_three_halves(matrix, steps):
    return stepped(divided(matrix), steps, lambda X: X - 0.5 * X @ X.T @ X)


@WRONG.to("orthogonalize", "multiplied by 1.5 too")
def brackets_around_both(matrix, steps):
    return stepped(divided(matrix), steps, lambda X: 1.5 * (X - X @ X.T @ X))


@WRONG.to("orthogonalize", "Xᵀ X Xᵀ")
def transposed_product(matrix, steps):
    return stepped(divided(matrix), steps, lambda X: 1.5 * X - 0.5 * X.T @ X @ X.T)


@WRONG.to("orthogonalize", "X X X")
def transpose_forgotten(matrix, steps):
    return stepped(divided(matrix), steps, lambda X: 1.5 * X - 0.5 * X @ X @ X)


@WRONG.to("orthogonalize", "third factor")
def third_factor_forgotten(matrix, steps):
    return stepped(divided(matrix), steps, lambda X: 1.5 * X - 0.5 * X @ X.T)


@WRONG.to("orthogonalize", "cubed", "@")
def entries_cubed(matrix, steps):
    return stepped(divided(matrix), steps, lambda X: 1.5 * X - 0.5 * X ** 3)


@WRONG.to("orthogonalize", "before each step")
def divided_in_each_step(matrix, steps):
    X = divided(matrix)
    for _ in range(steps):
        X = X / X.norm()
        X = step(X)
    return X


@WRONG.to("orthogonalize", "after each step")
def divided_after_each_step(matrix, steps):
    return stepped(divided(matrix), steps, lambda X: divided(step(X)))


@WRONG.to("orthogonalize", "first X again", "X of the step before")
def from_the_first_X_again(matrix, steps):
    first = X = divided(matrix)
    for _ in range(steps):
        X = step(first)
    return X


@WRONG.to("orthogonalize", "begins with `matrix`")
def from_the_matrix_again(matrix, steps):
    X = divided(matrix)
    for _ in range(steps):
        X = 1.5 * matrix - 0.5 * matrix @ matrix.T @ matrix
    return X


@WRONG.to("orthogonalize", "before the loop", "three")
def matrix_in_the_product(matrix, steps):
    X = divided(matrix)
    for _ in range(steps):
        X = 1.5 * X - 0.5 * X @ X.T @ matrix
    return X


@WRONG.to("orthogonalize", "1.5 is multiplied by the matrix")
def first_X_in_the_sum(matrix, steps):
    first = X = divided(matrix)
    for _ in range(steps):
        X = 1.5 * first - 0.5 * X @ X.T @ X
    return X


@WRONG.to("orthogonalize", "too few", "range(steps)")
def range_from_1(matrix, steps):
    X = divided(matrix)
    for _ in range(1, steps):
        X = step(X)
    return X


@WRONG.to("orthogonalize", "too many", "range(steps)")
def one_step_more(matrix, steps):
    return stepped(divided(matrix), steps + 1)


@WRONG.to("orthogonalize", "always 5 steps")
def five_steps(matrix, steps):
    return stepped(divided(matrix), 5)


@WRONG.to("orthogonalize", "at most one step")
def if_for_a_loop(matrix, steps):
    X = divided(matrix)
    if steps:
        X = step(X)
    return X


@WRONG.to("orthogonalize", "`return`", "inside of the loop")
def return_in_the_loop(matrix, steps):
    X = divided(matrix)
    for _ in range(steps):
        X = step(X)
        return X


@WRONG.to("orthogonalize", "no step")
def division_alone(matrix, steps):
    return divided(matrix)


@WRONG.to("orthogonalize", "result is X Xᵀ")
def the_test_of_orthogonality(matrix, steps):
    X = stepped(divided(matrix), steps)
    return X @ X.T


@WRONG.to("orthogonalize", "transposed")
def result_transposed(matrix, steps):
    return stepped(divided(matrix), steps).T


@WRONG.to("orthogonalize", "signs of the matrix")
def signs(matrix, steps):
    return matrix.sign()


@WRONG.to("orthogonalize", "signs of X")
def signs_of_the_result(matrix, steps):
    return stepped(divided(matrix), steps).sign()


@WRONG.to("orthogonalize", "QR")
def rows_of_qr(matrix, steps):
    Q, _ = torch.linalg.qr(matrix.T)
    return Q.T


@WRONG.to("orthogonalize", "QR")
def gram_schmidt(matrix, steps):
    """Make each column orthogonal to those before it. There are at most as many as rows."""
    columns = []
    for column in matrix.T[: len(matrix)]:
        for other in columns:
            column = column - (column @ other) * other
        columns.append(column / column.norm())
    return torch.stack(columns, dim=1)


@WRONG.to("orthogonalize", "exactly 1", "`steps`")
def exact_result(matrix, steps):
    U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U @ Vh


@WRONG.to("orthogonalize", "identity")
def identity(matrix, steps):
    return torch.eye(*matrix.shape, dtype=matrix.dtype)


@WRONG.to("orthogonalize", "not changed")
def matrix_itself(matrix, steps):
    return matrix


@WRONG.to("orthogonalize", "norm at the end")
def size_restored(matrix, steps):
    return stepped(divided(matrix), steps) * matrix.norm()


@WRONG.to("orthogonalize", "Muon")
def with_the_factors_of_muon(matrix, steps):
    def update(X):
        A = X @ X.T
        return 3.4445 * X + (-4.775 * A + 2.0315 * A @ A) @ X

    return stepped(divided(matrix), steps, update)


@WRONG.to("orthogonalize", "changes its argument", "`matrix`")
def argument_divided_in_place(matrix, steps):
    matrix /= matrix.norm()
    return stepped(matrix, steps)


@WRONG.to("orthogonalize", "changes its argument", "`matrix`")
def other_name_in_place(matrix, steps):
    X = matrix
    X.div_(X.norm())
    return stepped(X, steps)


@WRONG.to("orthogonalize", "largest entry", "second mistake", "too few")
def two_mistakes(matrix, steps):
    return stepped(matrix / matrix.max(), max(0, steps - 1))


@WRONG.to("orthogonalize", "float32", "float64")
def always_float32(matrix, steps):
    return stepped(divided(matrix.float()), steps)


@WRONG.to("orthogonalize", "function returns", "is right")
def wrong_from_the_third_step_on(matrix, steps):
    X = stepped(divided(matrix), min(2, steps))
    return stepped(X, steps - 2, lambda X: 1.25 * X - 0.25 * X @ X.T @ X)


# rotate -------------------------------------------------------------------------------------------

def angles(T, D, base=1000.0, first=0):
    return torch.arange(first, T + first)[:, None] * base ** (-torch.arange(0, D, 2) / D)


def turned(x, angle, sign=1):
    """Return x with its halves rotated by the angles (T, D/2)."""
    a, b = x.chunk(2, dim=1)
    c, s = angle.cos(), sign * angle.sin()
    return torch.cat([a * c - b * s, a * s + b * c], dim=1).to(x.dtype)


@RIGHT.to("rotate")
def with_complex_numbers(x):
    T, D = x.shape
    points = torch.complex(*x.double().chunk(2, dim=1))
    angle = angles(T, D).double()
    points = points * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([points.real, points.imag], dim=1).to(x.dtype)


@RIGHT.to("rotate")
def point_by_point(x):
    T, D = x.shape
    y = torch.zeros_like(x)
    for t in range(T):
        for i in range(D // 2):
            angle = t / 1000 ** (2 * i / D)
            c, s = math.cos(angle), math.sin(angle)
            y[t, i] = x[t, i] * c - x[t, D // 2 + i] * s
            y[t, D // 2 + i] = x[t, i] * s + x[t, D // 2 + i] * c
    return y


@RIGHT.to("rotate")
def with_the_other_half_turned(x):
    T, D = x.shape
    angle = torch.outer(torch.arange(T, dtype=x.dtype),
                        torch.logspace(0, -3, D // 2 + 1, dtype=x.dtype)[:-1]).repeat(1, 2)
    a, b = x[:, :D // 2], x[:, D // 2:]
    return x * angle.cos() + torch.cat([-b, a], dim=1) * angle.sin()


@RIGHT.to("rotate")
def with_matrices(x):
    T, D = x.shape
    angle = angles(T, D).to(x.dtype)
    c, s = angle.cos(), angle.sin()
    matrices = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    points = x.view(T, 2, D // 2).mT
    return (matrices @ points[..., None])[..., 0].mT.reshape(T, D)


@RIGHT.to("rotate")
def from_row_to_row(x):
    """Turn all rows from t on by one angle more, for each t."""
    T, D = x.shape
    speed = torch.exp(-math.log(1000) * torch.arange(0, D, 2, dtype=torch.float64) / D)
    y = x.double()
    for t in range(1, T):
        y = torch.cat([y[:t], turned(y[t:], speed.expand(T - t, -1))])
    return y.to(x.dtype)


@WRONG.to("rotate", "clockwise")
def clockwise(x):
    return turned(x, angles(*x.shape), sign=-1)


@WRONG.to("rotate", "clockwise")
def other_half_with_the_wrong_sign(x):
    a, b = x.chunk(2, dim=1)
    angle = angles(*x.shape).repeat(1, 2)
    return x * angle.cos() + torch.cat([b, -a], dim=1) * angle.sin()


@WRONG.to("rotate", "2i and 2i + 1", "i + D/2")
def neighbours(x):
    c, s = angles(*x.shape).cos(), angles(*x.shape).sin()
    y = torch.empty_like(x)
    y[:, ::2] = x[:, ::2] * c - x[:, 1::2] * s
    y[:, 1::2] = x[:, ::2] * s + x[:, 1::2] * c
    return y


@WRONG.to("rotate", "2i and 2i + 1", "two halves")
def neighbours_put_into_halves(x):
    return turned(torch.cat([x[:, ::2], x[:, 1::2]], dim=1), angles(*x.shape))


@WRONG.to("rotate", "side by side")
def interleaved_result(x):
    first, second = turned(x, angles(*x.shape)).chunk(2, dim=1)
    return torch.stack([first, second], dim=-1).flatten(1)


@WRONG.to("rotate", "10 000")
def base_of_other_models(x):
    return turned(x, angles(*x.shape, base=10_000.0))


@WRONG.to("rotate", "factor 2")
def factor_2_forgotten(x):
    T, D = x.shape
    speed = 1000.0 ** (-torch.arange(D // 2) / D)
    return turned(x, torch.arange(T)[:, None] * speed)


@WRONG.to("rotate", "twice as large", "D/2")
def divided_by_the_number_of_pairs(x):
    T, D = x.shape
    speed = 1000.0 ** (-2 * torch.arange(D // 2) / (D // 2))
    return turned(x, torch.arange(T)[:, None] * speed)


@WRONG.to("rotate", "D − 2")
def speeds_by_linspace(x):
    T, D = x.shape
    return turned(x, torch.arange(T)[:, None] * 1000 ** -torch.linspace(0, 1, D // 2))


@WRONG.to("rotate", "exponent is positive")
def growing_speeds(x):
    return turned(x, angles(*x.shape, base=1 / 1000))


@WRONG.to("rotate", "counted from 1")
def positions_from_1(x):
    return turned(x, angles(*x.shape, first=1))


@WRONG.to("rotate", "counted from 1", "i = 0")
def pairs_from_1(x):
    T, D = x.shape
    speed = 1000.0 ** (-2 * torch.arange(1, D // 2 + 1) / D)
    return turned(x, torch.arange(T)[:, None] * speed)


@WRONG.to("rotate", "treated as degrees")
def degrees(x):
    return turned(x, angles(*x.shape).deg2rad())


@WRONG.to("rotate", "turned into degrees")
def radians_made_degrees(x):
    return turned(x, angles(*x.shape).double().rad2deg())


@WRONG.to("rotate", "same angle")
def one_angle_for_all_pairs(x):
    T, D = x.shape
    return turned(x, torch.arange(T)[:, None].expand(-1, D // 2))


@WRONG.to("rotate", "all positions", "position 1")
def one_angle_for_all_positions(x):
    T, D = x.shape
    return turned(x, angles(2, D)[1:].expand(T, -1))


@WRONG.to("rotate", "not by i")
def pair_instead_of_position(x):
    T, D = x.shape
    i = torch.arange(D // 2)
    return turned(x, (i * 1000.0 ** (-2 * i / D)).expand(T, -1))


@WRONG.to("rotate", "t and pair i are exchanged")
def axes_exchanged(x):
    T, D = x.shape
    return turned(x, torch.arange(D // 2) * 1000.0 ** (-2 * torch.arange(T)[:, None] / D))


@WRONG.to("rotate", "cos and sin are exchanged")
def sine_for_cosine(x):
    a, b = x.chunk(2, dim=1)
    c, s = angles(*x.shape).cos(), angles(*x.shape).sin()
    return torch.cat([a * s - b * c, a * c + b * s], dim=1)


@WRONG.to("rotate", "halves of the result are exchanged")
def halves_exchanged(x):
    first, second = turned(x, angles(*x.shape)).chunk(2, dim=1)
    return torch.cat([second, first], dim=1)


@WRONG.to("rotate", "only the first half")
def first_half_alone(x):
    half = x.shape[1] // 2
    return torch.cat([turned(x, angles(*x.shape))[:, :half], x[:, half:]], dim=1)


@WRONG.to("rotate", "rotated first coordinates")
def half_the_channels(x):
    return turned(x, angles(*x.shape))[:, :x.shape[1] // 2]


@WRONG.to("rotate", "both coordinates are sums")
def plus_in_both(x):
    a, b = x.chunk(2, dim=1)
    c, s = angles(*x.shape).cos(), angles(*x.shape).sin()
    return torch.cat([a * c + b * s, a * s + b * c], dim=1)


@WRONG.to("rotate", "uses the new first one")
def overwritten_too_early(x):
    y, half = x.clone(), x.shape[1] // 2
    c, s = angles(*x.shape).cos(), angles(*x.shape).sin()
    y[:, :half] = y[:, :half] * c - y[:, half:] * s
    y[:, half:] = y[:, :half] * s + y[:, half:] * c
    return y


@WRONG.to("rotate", "sine belongs to the other half")
def halves_never_mixed(x):
    angle = angles(*x.shape).repeat(1, 2)
    return x * angle.cos() + x * angle.sin()


@WRONG.to("rotate", "added to x")
def added_as_an_embedding(x):
    angle = angles(*x.shape)
    return x + torch.cat([angle.sin(), angle.cos()], dim=1)


@WRONG.to("rotate", "nothing is rotated")
def not_rotated(x):
    return x.clone()


@WRONG.to("rotate", "below each other", "dim=1")
def halves_below_each_other(x):
    return torch.cat(turned(x, angles(*x.shape)).chunk(2, dim=1))


@WRONG.to("rotate", "axis of their own")
def halves_stacked(x):
    return torch.stack(turned(x, angles(*x.shape)).chunk(2, dim=1))


@WRONG.to("rotate", "loses its decimals")
def whole_exponents(x):
    T, D = x.shape
    return turned(x, torch.arange(T)[:, None] * 1000.0 ** (-2 * torch.arange(D // 2) // D))


@WRONG.to("rotate", "inside of the power")
def power_of_the_product(x):
    T, D = x.shape
    return turned(x, (torch.arange(T)[:, None] * 1000.0) ** (-2 * torch.arange(D // 2) / D))


@WRONG.to("rotate", "changes its argument", "`x`")
def rotated_in_place(x):
    x[:] = turned(x, angles(*x.shape))
    return x


@WRONG.to("rotate", "10 000", "second mistake", "clockwise")
def two_mistakes_in_rotate(x):
    return turned(x, angles(*x.shape, base=10_000.0), sign=-1)


@WRONG.to("rotate", "RuntimeError")
def angles_for_all_channels(x):
    T, D = x.shape
    return turned(x, torch.arange(T)[:, None] * 1000.0 ** (-torch.arange(D) / D))


@WRONG.to("rotate", "result is float32", "float64")
def result_of_float32(x):
    return turned(x.float(), angles(*x.shape))


@WRONG.to("rotate", "length of every point")
def points_grow(x):
    T = len(x)
    return turned(x, angles(*x.shape)) * (1 + torch.arange(T)[:, None] / T).to(x)


@WRONG.to("rotate", "function returns", "is right")
def slow_pairs_stand_still(x):
    angle = angles(*x.shape)
    return turned(x, angle * (angle <= 2))


# leaking_positions --------------------------------------------------------------------------------

def replaced(model, idx, p, V):
    """Return the logits (T, V) after a change of token p."""
    changed = idx.clone()
    changed[0, p] = (changed[0, p] + 1) % V
    return model(changed)[0]


def leaks_from(model, idx, sources=None, differ=None):
    """Return a set of pairs (t, p): the logits of position t change with token p > t."""
    T, before = idx.shape[1], model(idx)[0]
    sources = sources or (lambda t: range(t + 1, T))
    differ = differ or (lambda after, before: not torch.equal(after, before))
    return {(t, p) for t in range(T) for p in sources(t)
            if differ(replaced(model, idx, p, before.shape[-1])[t], before[t])}


def positions_of(pairs):
    return sorted({t for t, _ in pairs})


@RIGHT.to("leaking_positions")
def all_pairs(model, idx):
    return positions_of(leaks_from(model, idx))


@RIGHT.to("leaking_positions")
def position_after_position(model, idx):
    before = model(idx)
    V, leaks = before.shape[-1], []
    for t in range(idx.shape[1] - 1):
        for p in range(t + 1, idx.shape[1]):
            changed = idx.clone()
            changed[:, p] = (changed[:, p] - 1) % V
            if not torch.allclose(model(changed)[0, t], before[0, t]):
                leaks.append(t)
                break
    return leaks


@RIGHT.to("leaking_positions")
def all_changes_in_one_batch(model, idx):
    """Put one change into each row of a batch."""
    T = idx.shape[1]
    before = model(idx)
    changed = (idx + torch.eye(T, dtype=idx.dtype)) % before.shape[-1]
    differs = (model(changed) != before).any(-1)                    # (p, t)
    return differs.tril(-1).any(0).nonzero().flatten().tolist()


@RIGHT.to("leaking_positions")
def changed_and_restored(model, idx):
    model.eval()
    with torch.no_grad():
        before, leaks = model(idx).clone(), set()
        for p in range(idx.shape[1]):
            old = idx[0, p].item()
            idx[0, p] = (old + 3) % before.shape[2]
            differs = (model(idx) - before).abs().sum(-1) > 1e-6
            idx[0, p] = old
            leaks.update(t for t in range(p) if differs[0, t])
    return sorted(leaks)


@RIGHT.to("leaking_positions")
def all_other_tokens(model, idx):
    before, found = model(idx), torch.zeros(idx.shape[1], dtype=torch.bool)
    for p in range(idx.shape[1]):
        for token in range(before.shape[-1]):
            changed = idx.clone()
            changed[0, p] = token
            found[:p] |= (model(changed) - before)[0, :p].abs().amax(-1) > 0
    return [t for t, leaks in enumerate(found) if leaks]


@RIGHT.to("leaking_positions")
def as_a_tuple_of_tensors(model, idx):
    return tuple(torch.tensor(t) for t in positions_of(leaks_from(model, idx)))


@WRONG.to("leaking_positions", "only the next token", "every later position")
def next_token_alone(model, idx):
    T = idx.shape[1]
    return positions_of(leaks_from(model, idx, lambda t: range(t + 1, min(t + 2, T))))


@WRONG.to("leaking_positions", "only the last token", "every later position")
def last_token_alone(model, idx):
    before = model(idx)[0]
    after = replaced(model, idx, -1, before.shape[-1])
    return (after != before).any(-1)[:-1].nonzero()[:, 0].tolist()


@WRONG.to("leaking_positions", "last token is never replaced")
def without_the_last_token(model, idx):
    T = idx.shape[1]
    return positions_of(leaks_from(model, idx, lambda t: range(t + 1, T - 1)))


@WRONG.to("leaking_positions", "next token is never replaced")
def without_the_next_token(model, idx):
    T = idx.shape[1]
    return positions_of(leaks_from(model, idx, lambda t: range(t + 2, T)))


@WRONG.to("leaking_positions", "token was replaced", "not p")
def replaced_positions(model, idx):
    return sorted({p for _, p in leaks_from(model, idx)})


@WRONG.to("leaking_positions", "own token")
def own_token_counted(model, idx):
    T = idx.shape[1]
    return positions_of(leaks_from(model, idx, lambda t: range(t, T)))


@WRONG.to("leaking_positions", "own token")
def all_positions_compared(model, idx):
    before, leaks = model(idx)[0], set()
    for p in range(idx.shape[1]):
        after = replaced(model, idx, p, before.shape[-1])
        leaks |= set((after - before).abs().amax(-1).nonzero()[:, 0].tolist())
    return sorted(leaks)


@WRONG.to("leaking_positions", "tokens before a position are replaced")
def earlier_tokens(model, idx):
    return positions_of(leaks_from(model, idx, range))


@WRONG.to("leaking_positions", "position 0 is not looked at")
def position_0_forgotten(model, idx):
    return [t for t in all_pairs(model, idx) if t > 0]


@WRONG.to("leaking_positions", "pile up", "idx.clone()")
def one_copy_for_all_changes(model, idx):
    before, leaks, changed = model(idx), set(), idx.clone()
    for p in range(1, idx.shape[1]):
        changed[0, p] = (idx[0, p] + 1) % before.shape[-1]
        difference = (model(changed) - before).abs().amax(-1)[0, :p]
        leaks |= set(difference.nonzero()[:, 0].tolist())
    return sorted(leaks)


@WRONG.to("leaking_positions", "changes its argument", "`idx`")
def changed_in_place(model, idx):
    before, leaks = model(idx), set()
    for p in range(1, idx.shape[1]):
        idx[0, p] = (idx[0, p] + 1) % before.shape[-1]
        difference = (model(idx) - before).abs().amax(-1)[0, :p]
        leaks |= set(difference.nonzero()[:, 0].tolist())
    return sorted(leaks)


@WRONG.to("leaking_positions", "most probable tokens", "all logits")
def predictions_compared(model, idx):
    differ = lambda after, before: after.argmax() != before.argmax()
    return positions_of(leaks_from(model, idx, differ=differ))


@WRONG.to("leaking_positions", "first logit")
def first_logit_compared(model, idx):
    return positions_of(leaks_from(model, idx, differ=lambda after, before: after[0] != before[0]))


@WRONG.to("leaking_positions", "only the last logit")
def last_logit_compared(model, idx):
    return positions_of(leaks_from(model, idx, differ=lambda a, b: a[-1] != b[-1]))


@WRONG.to("leaking_positions", "only the largest logit")
def largest_logit_compared(model, idx):
    return positions_of(leaks_from(model, idx, differ=lambda a, b: a.max() != b.max()))


@WRONG.to("leaking_positions", "sum of the logits")
def sums_compared(model, idx):
    differ = lambda after, before: after.sum() != before.sum()
    return positions_of(leaks_from(model, idx, differ=differ))


@WRONG.to("leaking_positions", "become larger", "absolute value")
def absolute_value_forgotten(model, idx):
    differ = lambda after, before: (after - before).max() > 0
    return positions_of(leaks_from(model, idx, differ=differ))


@WRONG.to("leaking_positions", "probabilities are compared")
def probabilities_compared(model, idx):
    differ = lambda after, before: not torch.allclose(after.softmax(0), before.softmax(0), 0, 1e-9)
    return positions_of(leaks_from(model, idx, differ=differ))


@WRONG.to("leaking_positions", "any, and not all")
def all_logits_must_change(model, idx):
    differ = lambda after, before: (after != before).all()
    return positions_of(leaks_from(model, idx, differ=differ))


@WRONG.to("leaking_positions", "a token 0", "nothing changes")
def replaced_by_token_0(model, idx):
    before, leaks = model(idx), set()
    for p in range(1, idx.shape[1]):
        changed = idx.clone()
        changed[0, p] = 0
        leaks |= set((model(changed) != before)[0, :p].any(-1).nonzero()[:, 0].tolist())
    return sorted(leaks)


@WRONG.to("leaking_positions", "0 to 7", "% V")
def remainder_forgotten(model, idx):
    before, leaks = model(idx), set()
    for p in range(1, idx.shape[1]):
        changed = idx.clone()
        changed[0, p] += 1
        leaks |= set((model(changed) != before)[0, :p].any(-1).nonzero()[:, 0].tolist())
    return sorted(leaks)


@WRONG.to("leaking_positions", "0 to 7", "% V")
def remainder_of_the_length(model, idx):
    before, leaks = model(idx), set()
    for p in range(1, idx.shape[1]):
        changed = idx.clone()
        changed[0, p] = (idx[0, p] + 1) % before.shape[1]
        leaks |= set((model(changed) != before)[0, :p].any(-1).nonzero()[:, 0].tolist())
    return sorted(leaks)


@WRONG.to("leaking_positions", "its own or an earlier token")
def one_position_too_many(model, idx):
    before, leaks = model(idx), set()
    for p in range(1, idx.shape[1]):
        after = replaced(model, idx, p, before.shape[-1])
        leaks |= set((after != before[0])[:p + 1].any(-1).nonzero()[:, 0].tolist())
    return sorted(leaks)


@WRONG.to("leaking_positions", "together", "cancel")
def all_later_tokens_at_once(model, idx):
    before, leaks = model(idx), []
    for t in range(idx.shape[1]):
        changed = idx.clone()
        changed[:, t + 1:] = (changed[:, t + 1:] + 1) % before.shape[-1]
        if (model(changed)[0, t] - before[0, t]).abs().max() > 0:
            leaks.append(t)
    return leaks


@WRONG.to("leaking_positions", "removed", "number of tokens")
def shorter_text(model, idx):
    before = model(idx)[0]
    return [t for t in range(idx.shape[1])
            if not torch.allclose(model(idx[:, :t + 1])[0, -1], before[t])]


@WRONG.to("leaking_positions", "change before")
def compared_with_the_last_change(model, idx):
    before, leaks = model(idx)[0], set()
    V = before.shape[-1]
    for p in range(1, idx.shape[1]):
        after = replaced(model, idx, p, V)
        leaks |= {t for t in range(p) if not torch.equal(after[t], before[t])}
        before = after
    return sorted(leaks)


@WRONG.to("leaking_positions", "value of type bool")
def yes_or_no(model, idx):
    return bool(leaks_from(model, idx))


@WRONG.to("leaking_positions", "True or False")
def yes_or_no_for_each_position(model, idx):
    leaks = all_pairs(model, idx)
    return [t in leaks for t in range(idx.shape[1])]


@WRONG.to("leaking_positions", "0 or a 1")
def one_number_for_each_position(model, idx):
    leaks = all_pairs(model, idx)
    return [int(t in leaks) for t in range(idx.shape[1])]


@WRONG.to("leaking_positions", "set", "sorted")
def a_set(model, idx):
    return {t for t, _ in leaks_from(model, idx)}


@WRONG.to("leaking_positions", "Tensor", ".tolist()")
def a_tensor(model, idx):
    return torch.tensor(all_pairs(model, idx))


@WRONG.to("leaking_positions", "element of type tuple")
def pairs(model, idx):
    return sorted(leaks_from(model, idx))


@WRONG.to("leaking_positions", "element of type float", "integer")
def floats(model, idx):
    return [float(t) for t in all_pairs(model, idx)]


@WRONG.to("leaking_positions", "element of type Tensor", "integer")
def tensors_of_floats(model, idx):
    return list(torch.tensor(all_pairs(model, idx)).float())


@WRONG.to("leaking_positions", "contains 1000000000000", "T − 1")
def huge_positions(model, idx):
    return [t + 10 ** 30 for t in all_pairs(model, idx)]


@WRONG.to("leaking_positions", "no position -")
def counted_backwards(model, idx):
    return [t - idx.shape[1] for t in all_pairs(model, idx)]


@WRONG.to("leaking_positions", "probabilities are compared")
def probabilities_compared_exactly(model, idx):
    differ = lambda after, before: not torch.equal(after.softmax(0), before.softmax(0))
    return positions_of(leaks_from(model, idx, differ=differ))


@WRONG.to("leaking_positions", "counted from 1")
def counted_from_1(model, idx):
    return [t + 1 for t in all_pairs(model, idx)]


@WRONG.to("leaking_positions", "do not leak")
def clean_positions(model, idx):
    leaks = all_pairs(model, idx)
    return [t for t in range(idx.shape[1]) if t not in leaks]


@WRONG.to("leaking_positions", "descending")
def from_the_end(model, idx):
    return all_pairs(model, idx)[::-1]


@WRONG.to("leaking_positions", "once for each later token")
def several_times(model, idx):
    return sorted(t for t, _ in leaks_from(model, idx))


@WRONG.to("leaking_positions", "order in which they were found")
def in_the_order_of_tokens(model, idx):
    found = sorted(leaks_from(model, idx), key=lambda pair: pair[::-1])
    return list(dict.fromkeys(t for t, _ in found))


@WRONG.to("leaking_positions", "only the first position")
def stops_at_the_first(model, idx):
    return all_pairs(model, idx)[:1]


@WRONG.to("leaking_positions", "how many")
def number_of_leaks(model, idx):
    return [len(all_pairs(model, idx))]


@WRONG.to("leaking_positions", "always empty")
def nothing_changed(model, idx):
    before = model(idx)
    return (model(idx) - before)[0].abs().amax(-1).nonzero()[:, 0].tolist()


@WRONG.to("leaking_positions", "(1, T)")
def axis_of_the_batch_lost(model, idx):
    return model(idx[0])


@WRONG.to("leaking_positions", "only the next token", "second mistake", "descending")
def two_mistakes_in_leaking(model, idx):
    T = idx.shape[1]
    found = leaks_from(model, idx, lambda t: range(t + 1, min(t + 2, T)))
    return positions_of(found)[::-1]


@WRONG.to("leaking_positions", "each position once", "ascending")
def even_positions_first(model, idx):
    return sorted(all_pairs(model, idx), key=lambda t: (t % 2, t))


@WRONG.to("leaking_positions", "position 1 leaks", "is right")
def even_positions_alone(model, idx):
    return all_pairs(model, idx)[::2]


@WRONG.to("leaking_positions", "last position", "cannot leak")
def last_position_added(model, idx):
    leaks = all_pairs(model, idx)
    return leaks + [idx.shape[1] - 1] if len(leaks) > 1 else leaks
