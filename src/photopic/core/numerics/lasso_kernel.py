"""The compiled inner loop of ``lasso_path``: one target along its whole path of lambda, on a covariance it only reads.

Everything is in the half scale: g = r - S beta, and a coordinate is at rest where |g_j| <= lambda / 2. ``numba`` compiles a
function when it is first called (seconds) and keeps the machine code beside this file, or in the user's cache folder where
that cannot be written; where neither can, each process compiles anew. All of it is in one file, since only changes of that file
make numba compile again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from numba import njit

MATHS = {"reassoc", "contract", "nsz"}  # sums may be reordered to vectorise; NaN and infinity keep their meaning
SWEEPS = 100_000  # of one lambda, before it is given up
TURNS = 1_000  # checks of one lambda on all predictors
# numba compiles a function once more for a number that stands in a call itself, which is a type of its own: a fifth of its time
NONE, ONE = np.int64(0), np.int64(1)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on the first call, without the interpreter's lock; keep the machine code where a folder can be written."""
    try:
        return njit(cache=True, nogil=True, fastmath=MATHS)(function)
    except RuntimeError:  # numba found no folder it may write to
        return njit(nogil=True, fastmath=MATHS)(function)


@compiled
@no_type_check  # the type checker of the tests wraps a function, which numba cannot compile
def residual_correlation(second, cross, members, values, count, g):
    """g = r - S beta over all predictors; S is read by its rows, four at a time."""
    p = len(g)
    for j in range(p):
        g[j] = cross[j]
    a = 0
    while a + 4 <= count:
        s0, s1 = second[members[a]], second[members[a + 1]]
        s2, s3 = second[members[a + 2]], second[members[a + 3]]
        b0, b1, b2, b3 = values[a], values[a + 1], values[a + 2], values[a + 3]
        for j in range(p):
            g[j] -= b0 * s0[j] + b1 * s1[j] + b2 * s2[j] + b3 * s3[j]
        a += 4
    while a < count:
        row, b = second[members[a]], values[a]
        for j in range(p):
            g[j] -= b * row[j]
        a += 1


@compiled
@no_type_check
def sweep(gram, values, h, count, half):
    """One pass of coordinate descent over the working set; h = r - S beta there."""
    for a in range(count):
        old, diagonal = values[a], gram[a, a]
        z = h[a] + diagonal * old
        new = 0.0
        if z > half:
            new = (z - half) / diagonal
        elif z < -half:
            new = (z + half) / diagonal
        if new != old:
            values[a] = new
            step, row = new - old, gram[a]
            for c in range(count):
                h[c] -= step * row[c]


@compiled
@no_type_check
def factorise(matrix, first, size):
    """Overwrite rows ``first`` to ``size`` of a positive definite matrix's lower triangle by those of its Cholesky factor.

    The rows before hold the factor already. False where a pivot is not positive.
    """
    for start in range(first, size, 4):  # four rows at a time, so that each earlier row is read once for all of them
        if start + 4 <= size:
            r0, r1, r2, r3 = matrix[start], matrix[start + 1], matrix[start + 2], matrix[start + 3]
            for j in range(start):
                other = matrix[j]
                t0, t1, t2, t3 = r0[j], r1[j], r2[j], r3[j]
                for c in range(j):
                    value = other[c]
                    t0 -= r0[c] * value
                    t1 -= r1[c] * value
                    t2 -= r2[c] * value
                    t3 -= r3[c] * value
                inverse = 1.0 / other[j]
                r0[j], r1[j], r2[j], r3[j] = t0 * inverse, t1 * inverse, t2 * inverse, t3 * inverse
        for i in range(start, min(start + 4, size)):
            row = matrix[i]
            for j in range(start if start + 4 <= size else 0, i):
                other, total = matrix[j], row[j]
                for c in range(j):
                    total -= row[c] * other[c]
                row[j] = total / other[j]
            total = row[i]
            for c in range(i):
                total -= row[c] * row[c]
            if total <= 0.0:
                return False
            row[i] = np.sqrt(total)
    return True


@compiled
@no_type_check
def remove(matrix, gone, size, more):
    """Take one row and column out of a Cholesky factor by Givens rotations; ``more`` rows of L^-1 b below are turned with it.

    Without its row the factor has one entry too many in each row below; a rotation of neighbouring columns clears it.
    """
    cosines, sines = np.empty(size), np.empty(size)
    for i in range(gone + 1, size + more):
        row, above = matrix[i], matrix[i - 1]
        for j in range(gone):
            above[j] = row[j]
        left = row[gone]
        for j in range(gone, i - 1):
            right = row[j + 1]
            above[j] = cosines[j] * left + sines[j] * right
            left = cosines[j] * right - sines[j] * left
        if i < size:
            length = np.sqrt(left * left + row[i] * row[i])
            cosines[i - 1], sines[i - 1], above[i - 1] = left / length, row[i] / length, length


@compiled
@no_type_check
def forward(factor, vector, size):
    """Overwrite b by the solution of L y = b."""
    for i in range(size):
        total, row = vector[i], factor[i]
        for c in range(i):
            total -= row[c] * vector[c]
        vector[i] = total / row[i]


@compiled
@no_type_check
def backward(factor, vector, size):
    """Overwrite y by the solution of L' x = y, four rows of L at a time, so that x is read and written once for all of them."""
    i = size - 1
    while i >= 3:
        r0, r1, r2, r3 = factor[i], factor[i - 1], factor[i - 2], factor[i - 3]
        v0 = vector[i] / r0[i]
        v1 = (vector[i - 1] - r0[i - 1] * v0) / r1[i - 1]
        v2 = (vector[i - 2] - r0[i - 2] * v0 - r1[i - 2] * v1) / r2[i - 2]
        v3 = (vector[i - 3] - r0[i - 3] * v0 - r1[i - 3] * v1 - r2[i - 3] * v2) / r3[i - 3]
        vector[i], vector[i - 1], vector[i - 2], vector[i - 3] = v0, v1, v2, v3
        for c in range(i - 3):
            vector[c] -= r0[c] * v0 + r1[c] * v1 + r2[c] * v2 + r3[c] * v3
        i -= 4
    while i >= 0:
        vector[i] /= factor[i, i]
        for c in range(i):
            vector[c] -= factor[i, c] * vector[i]
        i -= 1


@compiled
@no_type_check
def support(gram, working, values, count, where, matrix, active, order):
    """List the non-zero coefficients and bring the factor of S on them up to date; their number, -1 where that fails.

    ``order`` names the predictors that the rows of the factor are of, up to a -1. Those that have become zero are taken out, new
    ones come at the end: so those that come and go gather there, where taking out costs least.
    """
    size = 0
    while size < len(order) and order[size] >= 0:
        size += 1
    for i in range(size - 1, -1, -1):
        if where[order[i]] < 0 or values[where[order[i]]] == 0.0:
            remove(matrix, i, size, NONE)
            size -= 1
            for j in range(i, size):
                order[j] = order[j + 1]
    for a in range(count):
        active[a] = -1  # for now: the row of each member of the working set
    for i in range(size):
        active[where[order[i]]] = i
    first = size
    for a in range(count):
        if values[a] != 0.0 and active[a] < 0:
            order[size] = working[a]
            size += 1
    if size < len(order):
        order[size] = -1
    for i in range(size):
        active[i] = where[order[i]]
    for i in range(first, size):
        row = gram[active[i]]
        for j in range(i):
            matrix[i, j] = row[active[j]]
        matrix[i, i] = row[active[i]] * (1.0 + 1e-11)
    if not factorise(matrix, first, size):
        order[0] = -1
        return -1
    return size


@compiled
@no_type_check
def newton(gram, working, values, h, count, half, where, matrix, active, order, step, before):
    """Go to the minimum with the present signs; a coordinate that meets zero on the way leaves, and the others go on without it.

    With A = L L' = S on the support the step solves A x = h - sign lambda / 2. y = L^-1 of the right side is kept as one more row
    of the factor, so that what takes a coordinate out of it does so to y too: one more solution of L' x = y is the others' step.

    The diagonal is raised a little: where S is singular on the support the step then runs along its null space, so that a
    redundant coordinate leaves. The step never goes uphill.
    """
    k = support(gram, working, values, count, where, matrix, active, order)
    for a in range(count):
        before[a] = values[a]
    if k > 0:
        y = matrix[k]
        for i in range(k):
            y[i] = h[active[i]] - (half if values[active[i]] > 0 else -half)
        forward(matrix, y, k)
    while k > 0:
        for i in range(k):
            step[i] = matrix[k, i]
        backward(matrix, step, k)
        length, leaving = 1.0, -ONE
        for i in range(k):
            value = values[active[i]]
            if (value + step[i]) * value < 0.0 and -value / step[i] < length:
                length, leaving = -value / step[i], i
        for i in range(k):
            values[active[i]] += length * step[i]
        if leaving < 0:
            break
        values[active[leaving]] = 0.0
        for i in range(k):  # what is left of the right side
            matrix[k, i] *= 1.0 - length
        remove(matrix, leaving, k, ONE)
        k -= 1
        for i in range(leaving, k):
            active[i], order[i] = active[i + 1], order[i + 1]
        order[k] = -1
    for a in range(count):  # h once for the whole series
        moved, row = values[a] - before[a], gram[a]
        if moved != 0.0:
            for c in range(count):
                h[c] -= moved * row[c]


@compiled
@no_type_check
def drop_zeros(gram, working, values, where, active, count):
    """Shrink the working set to its non-zero coefficients once a sixth of it or more is zero: sweeps read all of it."""
    kept = 0
    for a in range(count):
        if values[a] != 0.0:
            active[kept] = a
            kept += 1
    if 5 * count <= 6 * kept + 40:
        return count
    for a in range(count):
        where[working[a]] = -1
    for a in range(kept):
        row = gram[active[a]]
        working[a], values[a] = working[active[a]], values[active[a]]
        where[working[a]] = a
        for c in range(kept):
            gram[a, c] = row[active[c]]
    return kept


@compiled
@no_type_check
def gap(power, dot_cross, dot_g, l1, steepest, half):
    """Duality gap: ||y - X b||^2 + lambda ||b||_1 against ||y||^2 - ||y - c (y - X b)||^2, c as large as is feasible.

    Args are y'y, b'r, b'g, ||b||_1 and the largest |g_j|; b'Sb = b'r - b'g.
    """
    aligned = power - dot_cross  # y'(y - X b)
    error = aligned - dot_g  # ||y - X b||^2
    limit = 1.0 if steepest <= half else half / steepest
    best = aligned / error if error > 0.0 else limit
    scale = min(max(best, -limit), limit)
    if steepest > 0.0 and steepest < half:  # a longer dual point may still be feasible
        scale = min(max(best, -half / steepest), half / steepest)
    return error + 2.0 * half * l1 - (2.0 * scale * aligned - scale * scale * error)


@compiled
@no_type_check
def solve_path(
    second, cross, power, skip, lambdas, tolerance, g, gram, matrix, working, values, h, active, order, step, start, where,
    before, out_count, out_members, out_values, out_facts,
):  # fmt: skip
    """One target along its path; the number of coefficients written, or -1 where the working set outgrows its room.

    ``second`` is S, ``cross`` r and ``power`` v; ``skip`` is the target's own column, -1 where it has none; ``lambdas`` fall;
    ``tolerance`` is that of the duality gap, absolute. From g to before: workspace; ``where`` holds -1 at first and again at
    the end. ``out_count`` takes the coefficients of each lambda, ``out_members`` and ``out_values`` all of them one lambda after
    the other, ``out_facts`` the columns error theta' Sigma theta, ||beta||_1, duality gap, KKT violation, sweeps.
    """
    p, room = len(g), len(gram)
    count, written = NONE, NONE
    earlier, previous = 0.0, 0.0
    order[0] = -1  # no row of a factor is there
    for j in range(p):
        g[j] = before[j] = cross[j]
        if j != skip:
            previous = max(previous, abs(g[j]))
    for index in range(len(lambdas)):
        half = 0.5 * lambdas[index]
        count = drop_zeros(gram, working, values, where, active, count)
        # The strong rule bounds how fast g moves along the path by a slope of one; here the slope of the last step is
        # taken instead, which lets fewer in. What it misses is found by the check on all predictors.
        slope = (previous - half) / (earlier - previous) if earlier > previous else 0.0
        sweeps, found, worst, kept = NONE, np.inf, 0.0, NONE
        for turn in range(TURNS):
            for j in range(p):
                expected = g[j] + slope * (g[j] - before[j]) if turn == 0 else g[j]
                if abs(expected) > half and where[j] < 0 and j != skip:
                    if count == room:
                        for a in range(count):
                            where[working[a]] = -1
                        return -1
                    row = second[j]
                    for c in range(count):
                        gram[count, c] = gram[c, count] = row[working[c]]
                    gram[count, count] = row[j]
                    working[count], values[count], where[j] = j, 0.0, count
                    count += 1
            for a in range(count):
                h[a] = g[working[a]]
            if turn == 0:
                for j in range(p):
                    before[j] = g[j]
            while sweeps < SWEEPS:
                sweep(gram, values, h, count, half)
                sweeps += 1
                l1, dot_cross, dot_g, steepest = 0.0, 0.0, 0.0, 0.0
                for a in range(count):
                    steepest = max(steepest, abs(h[a]))
                    if values[a] != 0.0:
                        l1 += abs(values[a])
                        dot_cross += values[a] * cross[working[a]]
                        dot_g += values[a] * h[a]
                if gap(power, dot_cross, dot_g, l1, steepest, half) <= 0.9 * tolerance:
                    break
                newton(gram, working, values, h, count, half, where, matrix, active, order, step, start)
            kept, l1, dot_cross = NONE, 0.0, 0.0
            for a in range(count):
                if values[a] != 0.0:
                    active[kept], step[kept] = working[a], values[a]
                    l1 += abs(values[a])
                    dot_cross += values[a] * cross[working[a]]
                    kept += 1
            residual_correlation(second, cross, active, step, kept, g)  # exact, on all predictors
            dot_g, steepest, worst = 0.0, 0.0, 0.0
            for a in range(kept):
                dot_g += step[a] * g[active[a]]
                worst = max(worst, abs(g[active[a]] - (half if step[a] > 0 else -half)))
            for j in range(p):
                if j != skip:
                    steepest = max(steepest, abs(g[j]))
            worst = max(worst, steepest - half)
            found = gap(power, dot_cross, dot_g, l1, steepest, half)
            if found <= tolerance or sweeps >= SWEEPS:
                break
        out_count[index] = kept
        for a in range(kept):
            out_members[written], out_values[written] = active[a], step[a]
            written += 1
        out_facts[index, 0] = power - dot_cross - dot_g
        out_facts[index, 1] = l1
        out_facts[index, 2] = found
        out_facts[index, 3] = 2.0 * worst
        out_facts[index, 4] = sweeps
        earlier, previous = previous, half
    for a in range(count):
        where[working[a]] = -1
    return written
