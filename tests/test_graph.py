"""The graph encoder: what is linked to what, and what of it reaches the memory."""

from __future__ import annotations

import torch

from antiphon.core.batch import EOS, Batch, pad
from antiphon.models import graph
from antiphon.models.seq2seq import build
from conformance import GRAPHS, SIZE, made, model


def test_links_are_those_of_the_facts() -> None:
    """Node 1 (two tokens) is joined to node 2 by node 3, and to node 4 by node 5 (two tokens)."""
    node, subject, thing = (torch.tensor(GRAPHS[name][:1]) for name in ("fact_node", "fact_subject", "fact_object"))
    kinds = graph.links(node, subject, thing)[0]
    assert kinds[0].tolist() == [
        graph.SAME + graph.NEAR, graph.SAME + graph.NEAR + 1, graph.TOWARDS, graph.TO_RELATION, graph.TOWARDS,
        graph.TO_RELATION, graph.TO_RELATION,
    ]  # fmt: skip
    assert kinds[1, 0] == graph.SAME + graph.NEAR - 1
    assert kinds[2].tolist()[:5] == [graph.AGAINST, graph.AGAINST, graph.SAME + graph.NEAR, graph.TO_OBJECT, graph.FAR]
    assert kinds[3].tolist()[:6] == [
        graph.FROM_SUBJECT, graph.FROM_SUBJECT, graph.FROM_RELATION, graph.SAME + graph.NEAR, graph.FAR, graph.SIBLING,
    ]  # fmt: skip
    assert int(kinds.max()) < graph.LINKS


def test_far_tokens_of_a_label_are_told_apart_no_further() -> None:
    node = torch.ones(1, 9, dtype=torch.long)
    kinds = graph.links(node, node * 0, node * 0)[0]
    assert kinds[0].tolist()[4:] == [graph.LINKS - 1] * 5
    assert kinds[8].tolist()[:5] == [graph.SAME] * 5


def test_places_begin_anew_with_every_label() -> None:
    node = torch.tensor([[1, 1, 2, 3, 3, 3, 0, 0]])
    assert graph.places(node).tolist() == [[0, 1, 0, 0, 1, 2, 0, 1]]


def test_pairs_without_facts_are_a_batch_too() -> None:
    network, batch = made(model("lstm", "lstm", head="copy", knowledge="graph"))
    row = batch.rows(torch.tensor([2]))
    assert row.context["facts"].values.shape == (1, 0)
    with torch.no_grad():
        memory = network.encode(row.source, row.context)
        plain = network.encode(row.source, {"copy": row.context["copy"]})
    assert torch.equal(memory.states_BSD, plain.states_BSD)
    assert torch.equal(memory.summary_BD, plain.summary_BD)


def test_the_fixed_vector_knows_the_facts() -> None:
    network, batch = made(model("gru", "gru", "none", knowledge="graph"))
    with torch.no_grad():
        with_facts = network.encode(batch.source, batch.context).summary_BD
        without = network.encode(batch.source).summary_BD
    different = (with_facts - without).abs().amax(1) > 0
    assert different.tolist() == [True, True, False]


def test_a_batch_counts_the_tokens_of_its_facts() -> None:
    context = {"facts": pad([[5, 6, 7], []])}
    batch = Batch(pad([[5, EOS], [EOS]]), pad([[7, EOS], [8, EOS]]), context)
    assert batch.lengths_B.tolist() == [5, 1]
    assert batch.tokens == 10


def test_a_model_without_facts_has_the_weights_it_always_had() -> None:
    plain, knowing = build(model("gru", "gru"), SIZE, SIZE), build(model("gru", "gru", knowledge="linear"), SIZE, SIZE)
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in knowing.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), knowing.parameters(), strict=True))
