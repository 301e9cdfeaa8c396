"""The error function, what it lacks to 1, and its inverse."""

from __future__ import annotations

import math

from nncompile.elementwise.terms import Operand, Terms

# W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of
# Computation 23 (1969): erf(x) = x·P(x²)/Q(x²) up to 0.46875, erfc(x) = e^(−x²)·P(x)/Q(x) up to 4
# and e^(−x²)/x·(1/√π − P(1/x²)/Q(1/x²)/x²) beyond.
_ERF_P = (
    1.85777706184603153e-1,
    3.16112374387056560e0,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
_ERF_Q = (
    1.0,
    2.36012909523441209e1,
    2.44024637934444173e2,
    1.28261652607737228e3,
    2.84423683343917062e3,
)
_ERFC_P = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e0,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
_ERFC_Q = (
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)
_FAR_P = (
    1.63153871373020978e-2,
    3.05326634961232344e-1,
    3.60344899949804439e-1,
    1.25781726111229246e-1,
    1.60837851487422766e-2,
    6.58749161529837803e-4,
)
_FAR_Q = (
    1.0,
    2.56852019228982242e0,
    1.87295284992346725e0,
    5.27905102951428412e-1,
    6.05183413124413191e-2,
    2.33520497626869185e-3,
)
_NEAR = 0.46875
_ERF_IS_ONE = 6.0
_ERFC_IS_ZERO = 30.0


def _near(t: Terms, size: Operand) -> Operand:
    return t.product(size, t.ratio(t.product(size, size), _ERF_P, _ERF_Q))


def erf(t: Terms, x: Operand) -> Operand:
    """From 6 on it is 1 in double precision; between 4 and 6 the second form of its complement is
    right to what is left."""
    size = t("minimum", t("abs", x), _ERF_IS_ONE)
    square = t.product(size, size)
    tail = t.product(t("exp", t("negative", square)), t.ratio(size, _ERFC_P, _ERFC_Q))
    far = t("subtract", 1.0, tail)
    return t.signed(x, t.where(t("less", size, _NEAR), _near(t, size), far))


def erfc(t: Terms, x: Operand) -> Operand:
    """1 − erf(x), right to the last places wherever it is not 0."""
    size = t("minimum", t("abs", x), _ERFC_IS_ZERO)
    # e^(−x²) loses what rounding x² does: of x in sixteenths the square is exact.
    coarse = t("divide", t("floor", t.product(size, 16.0)), 16.0)
    rest = t.product(t("subtract", size, coarse), t.sum(size, coarse))
    power = t.product(
        t("exp", t("negative", t.product(coarse, coarse))), t("exp", t("negative", rest))
    )
    middle = t.ratio(size, _ERFC_P, _ERFC_Q)
    inverse = t("divide", 1.0, t.product(size, size))
    correction = t.product(inverse, t.ratio(inverse, _FAR_P, _FAR_Q))
    far = t("divide", t("subtract", 1 / math.sqrt(math.pi), correction), size)
    tail = t.product(power, t.where(t("less", size, 4.0), middle, far))
    is_negative = t("less", x, 0.0)
    outer = t.where(is_negative, t("subtract", 2.0, tail), tail)
    near = t("subtract", 1.0, t.signed(x, _near(t, size)))
    return t.where(t("less", size, _NEAR), near, outer)


# M. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied
# Statistics 37 (1988), PPND16: the quantile Φ⁻¹ in three parts, to 16 digits.
_CENTRE_P = (
    2.5090809287301226727e3,
    3.3430575583588128105e4,
    6.7265770927008700853e4,
    4.5921953931549871457e4,
    1.3731693765509461125e4,
    1.9715909503065514427e3,
    1.3314166789178437745e2,
    3.3871328727963666080e0,
)
_CENTRE_Q = (
    5.2264952788528545610e3,
    2.8729085735721942674e4,
    3.9307895800092710610e4,
    2.1213794301586595867e4,
    5.3941960214247511077e3,
    6.8718700749205790830e2,
    4.2313330701600911252e1,
    1.0,
)
_MIDDLE_P = (
    7.74545014278341407640e-4,
    2.27238449892691845833e-2,
    2.41780725177450611770e-1,
    1.27045825245236838258e0,
    3.64784832476320460504e0,
    5.76949722146069140550e0,
    4.63033784615654529590e0,
    1.42343711074968357734e0,
)
_MIDDLE_Q = (
    1.05075007164441684324e-9,
    5.47593808499534494600e-4,
    1.51986665636164571966e-2,
    1.48103976427480074590e-1,
    6.89767334985100004550e-1,
    1.67638483018380384940e0,
    2.05319162663775882187e0,
    1.0,
)
_TAIL_P = (
    2.01033439929228813265e-7,
    2.71155556874348757815e-5,
    1.24266094738807843860e-3,
    2.65321895265761230930e-2,
    2.96560571828504891230e-1,
    1.78482653991729133580e0,
    5.46378491116411436990e0,
    6.65790464350110377720e0,
)
_TAIL_Q = (
    2.04426310338993978564e-15,
    1.42151175831644588870e-7,
    1.84631831751005468180e-5,
    7.86869131145613259100e-4,
    1.48753612908506148525e-2,
    1.36929880922735805310e-1,
    5.99832206555887937690e-1,
    1.0,
)


def erfinv(t: Terms, x: Operand) -> Operand:
    """Φ⁻¹((1 + x)/2)/√2; ±∞ at ±1, NaN beyond."""
    size = t("abs", x)
    centre = t.ratio(
        t("subtract", 0.180625, t("divide", t.product(size, size), 4.0)), _CENTRE_P, _CENTRE_Q
    )
    left = t("divide", t("subtract", 1.0, size), 2.0)
    r = t("sqrt", t("negative", t("log", left)))
    middle = t.ratio(t("subtract", r, 1.6), _MIDDLE_P, _MIDDLE_Q)
    tail = t.ratio(t("subtract", r, 5.0), _TAIL_P, _TAIL_Q)
    outer = t("divide", t.where(t("less", 5.0, r), tail, middle), size)
    outer = t.where(t("equal", size, 1.0), math.inf, outer)
    factor = t.where(t("less_equal", size, 0.85), t("divide", centre, 2.0), outer)
    return t("divide", t.product(x, factor), math.sqrt(2))  # keeps the sign of a zero
