"""Two processes that train together give the results of one process that sees their shares in turn."""

import copy
import multiprocessing
import os
import socket
import time
from datetime import timedelta
from itertools import zip_longest

import numpy as np
import psutil
import pytest
import torch
from helpers import RANKED, RANKED_EPOCHS, RANKS, Exact, ranked_data, steps_of, train_as_rank
from hypothesis import given
from hypothesis import strategies as st

from study.machine import Machine
from trainables import loop, ranks
from trainables.draws import draws
from trainables.origins import origin
from trainables.ranks import ALONE, Ranks
from trainables.recipe import Epoch
from trainables.steps import loss_of


@pytest.fixture(scope="module")
def together():
    """Return by rank the measures of each epoch and the last state."""
    context = multiprocessing.get_context("spawn")
    answers, port = context.Queue(), context.Queue()
    processes = [context.Process(target=train_as_rank, args=(rank, port, answers)) for rank in range(RANKS)]
    for process in processes:
        process.start()
    found = {rank: rest for rank, *rest in (answers.get(timeout=120) for _ in processes)}
    for process in processes:
        process.join(30)
    return found


def in_one_process():
    """Train a slow reference: one network per rank sees its share, and one SGD follows the loss of the whole batch."""
    student = Exact()
    networks = [student.network, copy.deepcopy(student.network)]
    momentum = student.momentum
    for index, epoch in enumerate(RANKED_EPOCHS):
        shares = [
            steps_of(Exact(own), ranked_data(own, epoch), epoch, index)
            for own in (Ranks(rank, RANKS) for rank in range(RANKS))
        ]
        for network in networks:
            network.train()
        function, _ = loss_of(epoch, ranked_data(ALONE, epoch).counts, torch.device("cpu"), torch.float64)
        for step in zip(*shares, strict=True):
            logits = []
            for network, ((images,), _) in zip(networks, step, strict=True):
                network.load_state_dict(dict(student.network.named_parameters()), strict=False)
                network.zero_grad()
                logits.append(network(images.double()))
            loss = 0.0
            for parts in zip(*(targets for _, targets in step), strict=True):
                labels = torch.cat([labels for _, labels in parts])
                loss = loss + parts[0][0] * function(torch.cat(logits), labels)
            loss.backward()
            for (name, parameter), other in zip(
                student.network.named_parameters(), networks[1].parameters(), strict=True
            ):
                gradient = parameter.grad + other.grad + epoch.weight_decay * parameter.detach()
                momentum[name].mul_(epoch.momentum).add_(gradient)
                parameter.data.sub_(torch.tensor(epoch.lr) * momentum[name])  # the lr is a float32 there, too
    return student


def test_two_processes_agree_with_one_that_uses_their_batches(together):
    expected = {name: tensor for name, tensor in in_one_process().state().items() if not name.startswith("observed")}
    for name, tensor in expected.items():
        if tensor.is_floating_point():
            np.testing.assert_allclose(together[0][1][name], tensor.numpy(), rtol=0, atol=1e-10, err_msg=name)


def test_both_ranks_end_with_the_same_network_and_the_same_measures(together):
    (measures, state), (others, theirs) = together[0], together[1]
    assert measures == others
    for name, tensor in state.items():
        np.testing.assert_array_equal(theirs[name], tensor, err_msg=name)


def test_measures_are_those_of_one_process_that_evaluates_the_whole(together):
    measures, state = together[0]
    alone = Exact()
    alone.network.load_state_dict(
        {name.removeprefix("network."): torch.from_numpy(own) for name, own in state.items() if "network." in name}
    )
    found = loop.evaluate(alone, ranked_data(ALONE), RANKED_EPOCHS[-1])
    assert set(found) <= set(measures[-1])
    for name, value in found.items():
        assert measures[-1][name] == pytest.approx(value, rel=1e-9), name
    np.testing.assert_array_equal(state["observed.predictions"], alone.observed["predictions"].numpy())
    np.testing.assert_array_equal(state["observed.correct"], alone.observed["correct"].numpy())


def test_a_rank_that_has_no_image_measures_what_all_have(monkeypatch):
    empty, sums = Ranks(9999, 10_000), []
    monkeypatch.setattr(Ranks, "total", lambda _, *own: sums.append([tensor.clone() for tensor in own]))
    expected = loop.evaluate(Exact(), ranked_data(ALONE), RANKED_EPOCHS[-1])

    def total(_, *own):
        if own[0].dtype != torch.int32:  # and not of `whole`
            for tensor, known in zip(own, sums.pop(0), strict=True):
                assert not tensor.any()
                tensor.copy_(known)

    monkeypatch.setattr(Ranks, "total", total)
    assert loop.evaluate(Exact(empty), ranked_data(empty), RANKED_EPOCHS[-1]) == expected


def test_a_rank_s_batches_are_its_shares_of_the_whole_ones():
    epoch, order = RANKED_EPOCHS[0], np.random.default_rng(0).permutation(342)
    whole, *parts = (ranked_data(own, epoch) for own in (ALONE, *(Ranks(rank, 3) for rank in range(3))))
    draw = [list(each.batches(order, epoch, np.random.default_rng(1))) for each in (whole, *parts)]
    for batch, *shares in zip(*draw, strict=True):
        for rank, share in enumerate(shares):
            for own, all_of_it in zip(share, batch, strict=True):
                torch.testing.assert_close(own, all_of_it[rank::3], rtol=0, atol=0)
    for name in ("test_batches", "fit_batches"):
        joined = [[torch.cat(part) for part in zip(*getattr(each, name)(), strict=True)] for each in (whole, *parts)]
        for rank, share in enumerate(joined[1:]):
            for own, all_of_it in zip(share, joined[0], strict=True):
                torch.testing.assert_close(own, all_of_it[rank::3], rtol=0, atol=0)


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 8))
def test_the_shares_of_all_ranks_are_the_single_process_s_order_batch_by_batch(n, batch, size):
    order = np.random.default_rng(n).permutation(n)
    batches = [order[start : start + batch] for start in range(0, n, batch)]
    for whole in batches:
        shares = [whole[Ranks(rank, size).share] for rank in range(size)]
        again = [image for turn in zip_longest(*shares) for image in turn if image is not None]
        assert again == whole.tolist()
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_last_batch_with_fewer_images_than_ranks_is_left_out():
    epoch, counts = RANKED_EPOCHS[0], ranked_data(ALONE).counts
    epoch = Epoch(lr=0.1, crop=1, batch_size=int(counts.sum()) - 1)
    origins = [origin(RANKED, Machine("cpu", 1, ranks=size)) for size in (1, 2)]
    lengths = [len(draws(counts, epoch, own, 0).orders[0]) for own in origins]
    assert lengths == [counts.sum(), counts.sum() - 1]


def test_a_rank_that_does_not_join_is_lost_and_what_is_wrong_otherwise_is_not(monkeypatch):
    monkeypatch.setattr(ranks, "JOINING", timedelta(seconds=1))
    store = ranks.meet("127.0.0.1", 2)
    with pytest.raises(ranks.RankLost, match="gone"):
        ranks.join(Ranks(0, 2), "cpu", "127.0.0.1", lambda: store)
    with pytest.raises(ranks.RankLost, match="gone"):
        ranks.join(Ranks(1, 2), "cpu", "127.0.0.1", lambda: ranks.meet("127.0.0.1", 2, 1))  # where nobody waits
    assert not torch.distributed.is_initialized()

    def short_of_memory():
        raise torch.cuda.OutOfMemoryError("out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        ranks.join(Ranks(0, 2), "cpu", "127.0.0.1", short_of_memory)


def join_in_vain(answers):
    """Join a rank that is there and never connects. Torch counts the groups of a process, also this one."""
    ranks.JOINING = timedelta(seconds=2)
    store = ranks.meet("127.0.0.1", 2)
    store.set("1", "here")
    began = time.monotonic()
    try:
        ranks.join(Ranks(0, 2), "cpu", "127.0.0.1", lambda: store)
    except ranks.RankLost as error:
        answers.put((str(error), time.monotonic() - began))


def test_a_rank_that_cannot_be_reached_is_lost_as_soon():
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=join_in_vain, args=(answers,))
    process.start()
    words, seconds = answers.get(timeout=120)
    process.join(30)
    assert words.startswith("another training process is gone: ")
    assert seconds < 20


def train_late(rank, port, answers):
    """Join another rank and be late with the first sum, by more than gloo waits for ranks that join."""
    ranks.JOINING = timedelta(seconds=10)
    store = ranks.meet("127.0.0.1", 2, port.get(timeout=60) if rank else 0)
    port.put(store.port)
    ranks.join(Ranks(rank, 2), "cpu", "127.0.0.1", lambda: store)
    time.sleep(5 * rank)
    tensor = torch.ones(1)
    Ranks(rank, 2).total(tensor)
    answers.put((tensor.item(), os.environ["GLOO_SOCKET_IFNAME"]))
    ranks.leave()


def test_a_rank_that_has_joined_is_waited_for_for_longer_and_reached_by_its_address(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    held = {one.address: name for name, each in psutil.net_if_addrs().items() for one in each}
    context = multiprocessing.get_context("spawn")
    answers, port = context.Queue(), context.Queue()
    processes = [context.Process(target=train_late, args=(rank, port, answers)) for rank in range(2)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=120) for _ in processes] == [(2.0, held["127.0.0.1"])] * 2
    for process in processes:
        process.join(30)


def test_the_interface_that_a_user_has_chosen_stays(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "theirs")
    monkeypatch.setattr(ranks, "JOINING", timedelta(seconds=1))
    with pytest.raises(ranks.RankLost):
        ranks.join(Ranks(0, 2), "cpu", "127.0.0.1", lambda: ranks.meet("127.0.0.1", 2))
    assert os.environ["GLOO_SOCKET_IFNAME"] == "theirs"


def test_ranks_meet_at_the_address_that_was_given_and_at_no_other():
    store = ranks.meet("127.0.0.1", 1)
    socket.create_connection(("127.0.0.1", store.port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", store.port), timeout=5)


def test_alone_nothing_is_asked_of_torch_distributed():
    tensor = torch.ones(2)
    ALONE.add([tensor])
    ALONE.total(tensor)
    assert ALONE.shares(pytest.fail, pytest.fail) == [1.0, 1.0]
    ALONE.align([tensor])
    assert ALONE.whole(tensor, 2) is tensor
    assert not torch.distributed.is_initialized()
