"""The norm of the weights and what follows from it: effective area, clock and noise, with their derivatives."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from isoloss.arrays import FloatArray, namespace
from isoloss.laws.memory import weighted_sums
from isoloss.laws.norm_blocks import NOTHING, NormBlocks

Slopes: TypeAlias = dict[str, FloatArray]
"""Derivatives by the name of the parameter; empty where they are not asked for."""

VALUE = ""
"""Stands among the names of derivatives for what they are derivatives of."""


class Rates(NamedTuple):
    """The parameters of laws.md 1.5 that act through the norm and the memory, each (members, 1)."""

    C: FloatArray
    b: FloatArray
    g: FloatArray
    p: FloatArray
    c: FloatArray
    l: FloatArray  # noqa: E741


class Norms(NamedTuple):
    """ln R at the end of each block, and ln of its mean over each block: (members, blocks)."""

    log_end: FloatArray
    log_mean: FloatArray
    end_slopes: Slopes
    mean_slopes: Slopes


def norms(rates: Rates, features: NormBlocks, *, slopes: bool) -> Norms:
    """Return ln R, by the recurrence R^2 -> exp(-x) R^2 + c v (1 - exp(-x))/x over a block of x = 2 l wd area.

    It is exact where eta is constant in a block; v is the integral of eta^2. Over a block in which R^2 is linear
    the mean of 1/R is 2 / (R before + R after), which is why the mean of R is theirs.
    """
    xp = namespace(rates.l)
    x = rates.l * features.decay
    share, share_slope = _mean_decay(x)
    sources = [features.square * share]
    if slopes:
        sources.append(features.square * (share_slope * features.decay + share * features.elapsed))
    keep = xp.where(features.first, 0.0, xp.exp(-x))
    added = _recur(xp.stack(sources), keep, features.longest)
    squared = xp.exp(-rates.l * features.elapsed) + rates.c * added[0]
    end = xp.sqrt(squared)
    mean = (xp.roll(end, 1, axis=-1) + end) / 2  # of an empty first block: anything, it has no area
    found = Norms(xp.log(end), xp.log(mean), {}, {})
    if slopes:
        by = {"c": added[0], "l": rates.c * added[1] - features.elapsed * squared}
        for name, slope in by.items():
            slope = slope / (2 * end)
            found.end_slopes[name] = slope / end
            found.mean_slopes[name] = (xp.roll(slope, 1, axis=-1) + slope) / (2 * mean)
    return found


def effective_area(features: NormBlocks, found: Norms) -> tuple[FloatArray, Slopes]:
    """Return S at the points (members, points), and its derivatives by c and l."""
    xp = namespace(found.log_mean)
    share = features.area * xp.exp(-found.log_mean)
    area = xp.clip(_in_run(_running(share), features), 1e-12)
    by = {name: _in_run(_running(-share * slope), features) for name, slope in found.mean_slopes.items()}
    return area, by


def noise(rates: Rates, features: NormBlocks, found: Norms) -> tuple[FloatArray, Slopes]:
    """Return n at the points (members, points): what the present rate keeps up, and what earlier ones left."""
    xp = namespace(rates.p)
    log_e = features.log_eta - xp.take(found.log_end, features.at, axis=-1)
    value = xp.exp(rates.p * log_e)
    by = {
        name: -rates.p * value * xp.take(slope, features.at, axis=-1)
        for name, slope in found.end_slopes.items()
    }
    if by:
        by |= {"p": value * log_e} | {name: xp.zeros_like(value) for name in ("C", "b", "g")}
    if len(features.pair_corner):
        left, left_by = _left_of_drops(rates, features, found)
        value[:, features.annealed] += left
        for name, slope in left_by.items():
            by[name][:, features.annealed] += slope
    return value, by


def _left_of_drops(rates: Rates, features: NormBlocks, found: Norms) -> tuple[FloatArray, Slopes]:
    """Return what is left of the drops before each annealed point, (members, annealed).

    With K(x) = (1 + x/b)^-b left after x = C (I(t) - I), a drop that spreads evenly over its time I leaves its
    height times the mean of K over it: a difference of F, the integral of K, between its corners. One whose mean
    position lies a share m of that time later leaves m (K(end) - K(begin)) more, a sudden one K(end).
    """
    xp = namespace(rates.C)
    clock, clock_by = _clock(rates, features, found)
    height, height_by = _heights(rates, features, found)
    now = xp.take(features.at, features.annealed, axis=0)
    passed, passed_at = xp.take(clock, now, axis=-1), xp.take(clock, features.corner, axis=-1)
    since = xp.take(passed, features.pair_point, axis=-1) - xp.take(passed_at, features.pair_corner, axis=-1)
    total, kernel, *slopes = _kernel(rates.C * since, rates.b, slopes=bool(clock_by))
    weight = _even_weights(features, clock, clock_by, height, height_by)
    late = {name: _late_at_corners(one, features) for name, one in ({VALUE: height} | height_by).items()}
    places: Slopes = {}
    if clock_by:
        places = {VALUE: xp.ones_like(passed_at), "C": passed_at}
        places |= {name: xp.take(slope, features.corner, axis=-1) for name, slope in clock_by.items()}
    even = _summed(total, weight, features)
    pulled = {f"at {name}": weight[VALUE] * one for name, one in places.items()}
    lagging = _summed(kernel, late | pulled, features)
    value = even[VALUE] / rates.C + lagging[VALUE] + _closing(height, features)
    if not clock_by:
        return value, {}
    by = {name: even[name] / rates.C for name in weight if name != VALUE}
    for name, slope in height_by.items():
        by[name] += lagging[name] + _closing(slope, features)
    fall, total_b, kernel_b = slopes
    by["b"] = _summed(total_b, {VALUE: weight[VALUE]}, features)[VALUE] / rates.C
    by["b"] += _summed(kernel_b, {VALUE: late[VALUE]}, features)[VALUE]
    # What is left falls with the time between each corner and the point: by how much, times either's place.
    falling = _summed(fall, {name: late[VALUE] * one for name, one in places.items()}, features)
    moved = {name: lagging[f"at {name}"] + rates.C * falling[name] for name in places}
    by["C"] = (passed * moved[VALUE] - moved["C"] - even[VALUE] / rates.C) / rates.C
    for name, slope in clock_by.items():
        by[name] += xp.take(slope, now, axis=-1) * moved[VALUE] - moved[name]
    return value, by


def _even_weights(
    features: NormBlocks, clock: FloatArray, clock_by: Slopes, height: FloatArray, height_by: Slopes
) -> Slopes:
    """Return how often F counts at each corner, the `VALUE`, and its derivatives: (members, corners) each."""
    taken = _between(clock, features) + features.sudden
    spread = 1 - features.sudden
    by = {name: spread * slope / taken for name, slope in ({VALUE: height} | height_by).items()}
    for name, slope in clock_by.items():
        shrunk = by[VALUE] * _between(slope, features) / taken
        by[name] = by[name] - shrunk if name in by else -shrunk
    return {name: _at_corners(one, features) for name, one in by.items()}


def _heights(rates: Rates, features: NormBlocks, found: Norms) -> tuple[FloatArray, Slopes]:
    """Return by how much each drop lowers e^p (members, drops), and its derivatives by c, l and p."""
    xp = namespace(rates.p)
    log_r = _middle(found.log_end, features)
    log_high, log_low = features.log_high - log_r, features.log_low - log_r
    high, low = xp.exp(rates.p * log_high), xp.exp(rates.p * log_low)
    by = {
        name: -rates.p * (high - low) * _middle(slope, features) for name, slope in found.end_slopes.items()
    }
    return high - low, by | ({"p": high * log_high - low * log_low} if by else {})


def _clock(rates: Rates, features: NormBlocks, found: Norms) -> tuple[FloatArray, Slopes]:
    """Return I at all edges (members, blocks), and its derivatives by c, l and g; only differences count."""
    xp = namespace(rates.g)
    log_e = features.log_mean - found.log_mean
    passed = xp.where(features.resting, 0.0, features.duration * xp.exp((1 - rates.g) * log_e))
    by = {name: _running((rates.g - 1) * passed * slope) for name, slope in found.mean_slopes.items()}
    if by:
        by["g"] = _running(-passed * log_e)
    return _running(passed), by


def _kernel(x: FloatArray, b: FloatArray, *, slopes: bool) -> tuple[FloatArray, ...]:
    """Return F(x), the integral of K(u) = (1 + u/b)^-b for u in 0..x, K and, for slopes, K' and dF/db, dK/db.

    F = b ln(1 + x/b) (exp(v) - 1)/v with v = (1 - b) ln(1 + x/b), which is smooth at b = 1; x >= 0.
    """
    xp = namespace(x)
    share = x / b
    inverse = 1 / (1 + share)
    log = xp.log1p(share)
    v = (1 - b) * log + NOTHING  # at b = 1, and where x is 0, a limit
    grown = xp.expm1(v)
    mean = grown / v
    grown += 1
    total, kernel = b * log * mean, grown * inverse
    if not slopes:
        return total, kernel
    slope = (grown - mean) / v
    close = xp.abs(v) < 1e-3
    near = v[close]
    slope[close] = 0.5 + near / 3 * (1 + 3 * near / 8 * (1 + 4 * near / 15))
    passed = share * inverse
    total_b = (log - passed) * mean - log * slope * ((1 - b) * passed + b * log)
    return total, kernel, -kernel * inverse, total_b, kernel * (passed - log)


def _mean_decay(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (1 - exp(-x))/x, the mean of exp(-u) over 0..x, and its derivative, for x >= 0."""
    xp = namespace(x)
    small = x < 1e-2
    safe = xp.where(small, 1.0, x)
    fallen = -xp.expm1(-safe)
    value = xp.where(small, 1 - x / 2 * (1 - x / 3 * (1 - x / 4 * (1 - x / 5))), fallen / safe)
    series = -0.5 + x * (1 / 3 - x * (1 / 8 - x * (1 / 30 - x / 144)))
    return value, xp.where(small, series, ((1 - fallen) - fallen / safe) / safe)


def _recur(added: FloatArray, keep: FloatArray, longest: int) -> FloatArray:
    """Return y_j = keep_j y_{j-1} + added_j along the last axis, keep 0 where a run begins, by doubling.

    No factor is above 1, so that a run of any length stays in the range of numbers.
    """
    value, keep = added + 0.0, keep + 0.0
    shift = 1
    while shift < longest:
        value[..., shift:] += keep[..., shift:] * value[..., :-shift]
        keep[..., shift:] = keep[..., shift:] * keep[..., :-shift]
        shift *= 2
    return value


def _running(values: FloatArray) -> Any:
    return namespace(values).cumulative_sum(values, axis=-1)


def _summed(values: FloatArray, weights: Slopes, features: NormBlocks) -> Slopes:
    """Return sums of values (members, pairs) times weights (members, corners) at each annealed point, by name."""
    xp = namespace(values)
    stacked = xp.stack(list(weights.values()), axis=-1)
    sums = weighted_sums(values, stacked, features.pair_corner, features.pair_ends)
    return {name: sums[..., column] for column, name in enumerate(weights)}


def _in_run(total: FloatArray, features: NormBlocks) -> Any:
    xp = namespace(total)
    return xp.take(total, features.at, axis=-1) - xp.take(total, features.begin, axis=-1)


def _between(values: FloatArray, features: NormBlocks) -> Any:
    xp = namespace(values)
    return xp.take(values, features.drop_end, axis=-1) - xp.take(values, features.drop_begin, axis=-1)


def _middle(values: FloatArray, features: NormBlocks) -> Any:
    xp = namespace(values)
    return (xp.take(values, features.drop_begin, axis=-1) + xp.take(values, features.drop_end, axis=-1)) / 2


def _at_corners(values: FloatArray, features: NormBlocks) -> Any:
    """Return the value of the drop that opens at each corner, less that of the one that closes there."""
    xp = namespace(values)
    padded = _padded(values)
    return xp.take(padded, features.opens, axis=-1) - xp.take(padded, features.closes, axis=-1)


def _late_at_corners(height: FloatArray, features: NormBlocks) -> Any:
    """Return how often K counts at each corner."""
    xp = namespace(height)
    closed = xp.take(_padded(features.sudden * height), features.closes, axis=-1)
    return closed - _at_corners(features.late * height, features)


def _closing(height: FloatArray, features: NormBlocks) -> Any:
    """Return how often K, there 1, counts for the drop that ends with each annealed point."""
    counted = _padded((features.late + features.sudden) * height)
    return namespace(height).take(counted, features.closing, axis=-1)


def _padded(values: FloatArray) -> Any:
    xp = namespace(values)
    return xp.concat([values, xp.zeros_like(values[:, :1])], axis=-1)  # the last position: no drop
