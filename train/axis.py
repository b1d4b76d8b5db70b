"""How far a layer sees along one axis of the picture: pixels behind each output, composed from layer to layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

Span = tuple[int, int]
"""First and last."""


@dataclass(frozen=True)
class Axis:
    """The input pixels behind a tensor, along one axis.

    `spans` are those that the first outputs see; each later one sees what the one `len(spans)` before it does, `step`
    pixels further on. There are several only behind an upsampling, whose outputs share pixels. `whole` says that
    each output sees the whole picture, however it is placed (a dense layer, a global mean); the spans then mean
    nothing.
    """

    spans: tuple[Span, ...] = ((0, 0),)
    step: int = 1
    whole: bool = False

    @property
    def first(self) -> int:
        """The first pixel that the first output sees; may lie in the padding."""
        return self.spans[0][0]

    @property
    def last(self) -> int:
        """The last pixel that the first output sees."""
        return self.spans[0][1]

    @property
    def stride(self) -> Fraction:
        """Pixels from one output to the next, on average."""
        return Fraction(self.step, len(self.spans))

    @property
    def size(self) -> int:
        """Pixels seen, those in the padding included, by the output that sees most."""
        return max(last - first + 1 for first, last in self.spans)

    def at(self, output: int) -> Span:
        """What that output sees."""
        turns, place = divmod(output, len(self.spans))
        first, last = self.spans[place]
        return first + turns * self.step, last + turns * self.step

    def through(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Axis:
        """After a window of `kernel` taps, `dilation` apart, moved by `stride`, `padding` at the start."""
        reach = dilation * (kernel - 1) - padding
        return self.read(lambda k: (k * stride - padding, k * stride + reach), Fraction(stride))

    def read(self, seen: Callable[[int], Span], pace: Fraction) -> Axis:
        """After a layer whose output k sees `seen(k)` of this one's, and that moves by `pace` of them."""
        rate = pace / len(self.spans)
        ends = [seen(k) for k in range(rate.denominator)]
        spans = tuple((self.at(low)[0], self.at(high)[1]) for low, high in ends)
        return Axis(spans, self.step * rate.numerator, self.whole)

    def joined(self, other: Axis) -> Axis:
        """What an element-wise operation on two tensors sees."""
        period = math.lcm(len(self.spans), len(other.spans))
        pairs = [(self.at(k), other.at(k)) for k in range(period)]
        return Axis(
            tuple((min(one[0], two[0]), max(one[1], two[1])) for one, two in pairs),
            int(period * max(self.stride, other.stride)),
            self.whole or other.whole,
        )
