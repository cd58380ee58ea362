"""What Prometheus is told: latency, queue, batches, speed, and the signals of drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

import antiphon

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SENTENCES = (1, 2, 4, 8, 16, 32, 64, 128)
RATIOS = (0.1, 0.25, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 4, 10)
SHARES = tuple(n / 10 for n in range(1, 11))


class Metrics:
    """All figures of one server. Length ratio, confidence, unfinished and odd answers tell where inputs drift away
    from those of training."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"antiphon_{name}", what, labels, registry=self.registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"antiphon_{name}", what, labels, registry=self.registry)

        def histogram(name: str, what: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"antiphon_{name}", what, labels, registry=self.registry, buckets=buckets)

        self.requests = counter("requests_total", "requests by route and status", "route", "status")
        self.seconds = histogram("request_seconds", "seconds from a request to its answer", SECONDS, "route")
        self.refused = counter("refused_total", "requests that were not answered, by cause", "cause")
        self.queue_cost = gauge("queue_tokens", "source tokens times hypotheses that wait")
        self.queued = gauge("queue_requests", "requests that wait")
        self.running = gauge("running_requests", "requests that are decoded")
        self.queue_seconds = histogram("queue_seconds", "seconds that a request waited", SECONDS)
        self.batch_size = histogram("batch_inputs", "inputs of a batch", SENTENCES)
        self.batch_seconds = histogram("batch_seconds", "seconds to decode a batch", SECONDS)
        self.source_tokens = counter("source_tokens_total", "source tokens read", "model")
        self.target_tokens = counter("target_tokens_total", "tokens answered", "model")
        self.ratio = histogram("length_ratio", "target tokens for each source token of an answer", RATIOS, "model")
        self.confidence = histogram("confidence", "confidence in an answer", SHARES, "model")
        self.probability = histogram("probability", "mean probability of an answer's tokens", SHARES, "model")
        self.odd = counter("odd_answers_total", "answers with something unusual about them", "model")
        self.unfinished = counter("unfinished_answers_total", "answers without an end", "model")
        self.restarts = counter("restarts_total", "decoding processes that were replaced, by cause", "cause")
        self.reloads = counter("reloads_total", "attempts to load a model that changed", "model", "outcome")
        self.ready = gauge("ready", "1 where requests are accepted")
        self.info = gauge("model_info", "models by name and the SHA-256 of their manifest", "model", "sha256")
        gauge("build_info", "the version", "version").labels(antiphon.__version__).set(1)

    def queue(self, cost: int, waiting: int, running: int) -> None:
        """How full it is now."""
        self.queue_cost.set(cost)
        self.queued.set(waiting)
        self.running.set(running)

    def batch(self, inputs: int, waited: Sequence[float]) -> None:
        """A batch begins, whose requests have waited so long."""
        self.batch_size.observe(inputs)
        for seconds in waited:
            self.queue_seconds.observe(seconds)

    def answer(self, model: str, answer: Mapping[str, Any], source: int, target: int) -> None:
        """One answer, and the tokens read and said for it."""
        self.source_tokens.labels(model).inc(source)
        self.target_tokens.labels(model).inc(target)
        if source and target:
            self.ratio.labels(model).observe(target / source)
        if answer["confidence"] is not None:
            self.confidence.labels(model).observe(answer["confidence"])
        if answer["probability"] is not None:
            self.probability.labels(model).observe(answer["probability"])
        if answer["reason"]:
            self.odd.labels(model).inc()
        if not answer["finished"]:
            self.unfinished.labels(model).inc()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
