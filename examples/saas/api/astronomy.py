"""Where Sun, Moon and planets stand, to a few arc minutes between 1800 and 2050. Angles in degrees.

Planets move on ellipses with slowly changing elements (JPL, approximate positions of the planets);
the Moon is the sum of its largest terms (Meeus, Astronomical Algorithms, chapter 47). Pure Python
and slow: a year of transits takes a CPU tens of milliseconds.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

J2000 = datetime(2000, 1, 1, 12, tzinfo=timezone.utc)
CENTURY_DAYS = 36_525.0
OBLIQUITY = 23.4393
PRECESSION = 1.39697  # a century
MAJOR_ASPECTS = {0: "conjunction", 60: "sextile", 90: "square", 120: "trine", 180: "opposition"}
ORB = 6.0


@dataclass(frozen=True, slots=True)
class Orbit:
    """Axis (AU), eccentricity, inclination, mean longitude, perihelion, node; then each a century."""

    now: tuple[float, ...]
    change: tuple[float, ...]

    def at(self, centuries: float) -> tuple[float, ...]:
        """The elements at a time."""
        return tuple(a + b * centuries for a, b in zip(self.now, self.change, strict=True))


EARTH = Orbit(
    (1.00000261, 0.01671123, -0.00001531, 100.46457166, 102.93768193, 0.0),
    (0.00000562, -0.00004392, -0.01294668, 35999.37244981, 0.32327364, 0.0),
)
PLANETS = {
    "mercury": Orbit(
        (0.38709927, 0.20563593, 7.00497902, 252.25032350, 77.45779628, 48.33076593),
        (0.00000037, 0.00001906, -0.00594749, 149472.67411175, 0.16047689, -0.12534081),
    ),
    "venus": Orbit(
        (0.72333566, 0.00677672, 3.39467605, 181.97909950, 131.60246718, 76.67984255),
        (0.00000390, -0.00004107, -0.00078890, 58517.81538729, 0.00268329, -0.27769418),
    ),
    "mars": Orbit(
        (1.52371034, 0.09339410, 1.84969142, -4.55343205, -23.94362959, 49.55953891),
        (0.00001847, 0.00007882, -0.00813131, 19140.30268499, 0.44441088, -0.29257343),
    ),
    "jupiter": Orbit(
        (5.20288700, 0.04838624, 1.30439695, 34.39644051, 14.72847983, 100.47390909),
        (-0.00011607, -0.00013253, -0.00183714, 3034.74612775, 0.21252668, 0.20469106),
    ),
    "saturn": Orbit(
        (9.53667594, 0.05386179, 2.48599187, 49.95424423, 92.59887831, 113.66242448),
        (-0.00125060, -0.00050991, 0.00193609, 1222.49362201, -0.41897216, -0.28867794),
    ),
}
# Size of a term, and how often elongation, Sun's, Moon's anomaly and latitude's argument go into it.
MOON_TERMS = (
    (6.288774, 0, 0, 1, 0),
    (1.274027, 2, 0, -1, 0),
    (0.658314, 2, 0, 0, 0),
    (0.213618, 0, 0, 2, 0),
    (-0.185116, 0, 1, 0, 0),
    (-0.114332, 0, 0, 0, 2),
    (0.058793, 2, 0, -2, 0),
    (0.057066, 2, -1, -1, 0),
    (0.053322, 2, 0, 1, 0),
    (0.045758, 2, -1, 0, 0),
)


def natal_chart(born: datetime, latitude: float, longitude: float) -> dict[str, Any]:
    """The chart of a birth, and the exact transits over it in the year that follows."""
    places = positions(born)
    return {
        "ascendant": round(ascendant(born, latitude, longitude), 2),
        "positions": {body: round(place, 2) for body, place in places.items()},
        "aspects": [list(aspect) for aspect in aspects(places)],
        "transits": [list(transit) for transit in transits(places, born)],
    }


def positions(when: datetime) -> dict[str, float]:
    """Ecliptic longitudes as seen from the Earth, for the equinox of the date."""
    centuries = (when - J2000) / timedelta(days=CENTURY_DAYS)
    x, y = _heliocentric(EARTH, centuries)
    found = {"sun": math.degrees(math.atan2(-y, -x)) + PRECESSION * centuries}
    for name, orbit in PLANETS.items():
        px, py = _heliocentric(orbit, centuries)
        found[name] = math.degrees(math.atan2(py - y, px - x)) + PRECESSION * centuries
    found["moon"] = _moon(centuries)
    return {name: place % 360 for name, place in found.items()}


def _heliocentric(orbit: Orbit, centuries: float) -> tuple[float, float]:
    axis, eccentricity, tilt, mean_longitude, perihelion, node = orbit.at(centuries)
    anomaly = _kepler(math.radians((mean_longitude - perihelion) % 360), eccentricity)
    along = axis * (math.cos(anomaly) - eccentricity)
    across = axis * math.sqrt(1 - eccentricity**2) * math.sin(anomaly)
    turn, up, around = (math.radians(angle) for angle in (perihelion - node, tilt, node))
    u = along * math.cos(turn) - across * math.sin(turn)
    v = (along * math.sin(turn) + across * math.cos(turn)) * math.cos(up)
    return (
        u * math.cos(around) - v * math.sin(around),
        u * math.sin(around) + v * math.cos(around),
    )


def _kepler(mean: float, eccentricity: float) -> float:
    """The eccentric anomaly, by Newton's method."""
    anomaly = mean
    for _ in range(10):
        step = (anomaly - eccentricity * math.sin(anomaly) - mean) / (
            1 - eccentricity * math.cos(anomaly)
        )
        anomaly -= step
        if abs(step) < 1e-12:
            break
    return anomaly


def _moon(centuries: float) -> float:
    arguments = (
        297.8501921 + 445267.1114034 * centuries,
        357.5291092 + 35999.0502909 * centuries,
        134.9633964 + 477198.8675055 * centuries,
        93.2720950 + 483202.0175233 * centuries,
    )
    mean = 218.3164477 + 481267.88123421 * centuries
    return mean + sum(
        size * math.sin(math.radians(sum(n * a for n, a in zip(counts, arguments, strict=True))))
        for size, *counts in MOON_TERMS
    )


def ascendant(when: datetime, latitude: float, longitude: float) -> float:
    """Which degree of the ecliptic rises."""
    days = (when - J2000) / timedelta(days=1)
    sidereal = math.radians(280.46061837 + 360.98564736629 * days + longitude)
    tilt, north = math.radians(OBLIQUITY), math.radians(latitude)
    down = math.sin(sidereal) * math.cos(tilt) + math.tan(north) * math.sin(tilt)
    return math.degrees(math.atan2(math.cos(sidereal), -down)) % 360


def aspects(places: dict[str, float]) -> Iterator[tuple[str, str, str]]:
    """Pairs that stand at a major angle, within the orb."""
    names = sorted(places)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            apart = abs(_signed(places[one] - places[other]))
            for angle, aspect in MAJOR_ASPECTS.items():
                if abs(apart - angle) <= ORB:
                    yield one, aspect, other


def transits(natal: dict[str, float], born: datetime) -> Iterator[tuple[str, str, str]]:
    """When a planet stands exactly where one stood at birth: to the minute, over one year."""
    day = timedelta(days=1)
    before = positions(born + day)
    for number in range(2, 366):
        after = positions(born + number * day)
        for mover in PLANETS:
            for target, place in natal.items():
                one, two = _signed(before[mover] - place), _signed(after[mover] - place)
                if one * two < 0 and abs(one - two) < 90:
                    when = _crossing(mover, place, born + (number - 1) * day, day)
                    yield when.isoformat(timespec="minutes"), mover, target
        before = after


def _crossing(mover: str, place: float, start: datetime, length: timedelta) -> datetime:
    """Halve the time until it is a minute."""
    sign = _signed(positions(start)[mover] - place)
    while length > timedelta(minutes=1):
        length /= 2
        if sign * _signed(positions(start + length)[mover] - place) > 0:
            start += length
    return start


def _signed(angle: float) -> float:
    """An angle between -180 and 180."""
    return (angle + 180) % 360 - 180
