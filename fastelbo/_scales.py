"""What Gaussians need of numbers, for Python and for what is compiled."""

import math

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
#: Scales with which the density is the squared error times a factor, in either dtype.
LEAST, MOST = 1e-8, 1e8
