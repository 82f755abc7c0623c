import fastelbo

from . import total_correlation


class AggregatePosteriorLogDensity(total_correlation.TotalCorrelation):
    baseline = "aggregate_posterior_log_density"
    function = staticmethod(fastelbo.aggregate_posterior_log_density)
