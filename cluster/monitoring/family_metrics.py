"""Prometheus metrics of the families of a mixture; without a mixture they have no series."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from common.update_record import FamilyRecord


class FamilyMetrics:
    """What the last batch held of each family of tasks. The label `family` has as many values as the mixture."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._samples = Counter(
            "outertrain_family_samples",
            "Samples in applied batches, by family of tasks.",
            ["family"],
            registry=registry,
        )
        self._loss = Gauge(
            "outertrain_family_outer_loss",
            "Mean outer loss of the family's pairs in the last batch that held any.",
            ["family"],
            registry=registry,
        )
        self._weight = Gauge(
            "outertrain_family_rp_weight",
            "Mean merge weight of rp that the family's pairs alone would give.",
            ["family"],
            registry=registry,
        )
        self._variance = Gauge(
            "outertrain_family_variance",
            "Variance of one pair of the family, median over coordinates.",
            ["family", "estimator"],
            registry=registry,
        )

    def observe(self, families: Mapping[str, FamilyRecord]) -> None:
        """Publishes the families of a batch."""
        for name, family in families.items():
            self._samples.labels(name).inc(family.samples)
            self._loss.labels(name).set(family.loss)
            if family.weight_rp is not None:
                self._weight.labels(name).set(family.weight_rp)
            for estimator, variance in (("rp", family.var_rp), ("es", family.var_es)):
                if variance is not None:
                    self._variance.labels(name, estimator).set(variance)
