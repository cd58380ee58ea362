"""An observer looks at a run and may ask it to stop; here it ends training once the loss is low enough."""

import tempfile

from antiphon import fit
from antiphon.training.observers import Answer, Observer, StepEvent


class GoodEnough(Observer):
    """Stops at the first step whose loss is below a limit."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def step(self, event: StepEvent) -> Answer:
        print(f"step {event.step:3}  loss {event.loss:.3f}  {event.tokens_per_second:,.0f} tokens/s")
        return "stop" if event.loss < self.limit else None


pairs = [(" ".join(str(number)), " ".join(str(number + 1))) for number in range(100, 900)]
settings = {"training.minutes": 0.1, "training.label_smoothing": 0.0, "model.width": 64}
with tempfile.TemporaryDirectory() as folder:
    result = fit(pairs, out=f"{folder}/run", assignments=settings, observers=[GoodEnough(1.5)])
    print(f"ended after {result.step} steps ({result.reason}), best {result.metric} {result.best}")
