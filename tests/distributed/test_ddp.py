"""DistributedDataParallel against the serial program: same losses, gradients and parameters at any number of ranks."""

import numpy as np
import pytest

import dtrain
from dtrain.nn.module import Module
from dtrain.nn.parameter import Parameter
from dtrain.comm.threads import run_threads
from dtrain.distributed.ddp import DistributedDataParallel as DDP
from dtrain.errors import DistributedError

WORLDS = [1, 2, 3, 4, 8]
ROWS = 24  # divides by every world size
STEPS = 4


class Net(Module):
    """Two layers, one shared weight, a scale, and a buffer that follows the data."""

    def __init__(self, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        make = lambda *shape: Parameter(dtrain.tensor(rng.standard_normal(shape) / 3))  # noqa: E731
        self.first, self.second, self.shared, self.scale = make(6, 10), make(10, 3), make(10, 10), make()
        self.register_buffer("seen", dtrain.zeros(3, dtype=dtrain.float64))

    def forward(self, x):
        h = (x @ self.first).tanh() @ self.shared
        h = (h.tanh() @ self.shared).tanh()
        return h @ self.second * self.scale


def batch(step):
    rng = np.random.default_rng(100 + step)
    return rng.standard_normal((ROWS, 6)), rng.standard_normal((ROWS, 3))


def share(array, rank, size):
    rows = len(array) // size
    return dtrain.tensor(array[rank * rows : (rank + 1) * rows])


def loss_of(model, x, y):
    return (model(x) - y).square().mean()


def descend(model):
    with dtrain.no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad
            p.grad = None


def serial():
    model = Net()
    losses = []
    for step in range(STEPS):
        loss = loss_of(model, *(dtrain.tensor(a) for a in batch(step)))
        loss.backward()
        losses.append(loss.item())
        descend(model)
    return losses, {n: p.detach().numpy().copy() for n, p in model.named_parameters()}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("cap", [25, 0.0004], ids=["one bucket", "many buckets"])
def test_trains_like_the_serial_program(world, cap):
    def train(group):
        model = Net(seed=group.rank)  # only rank 0's start counts
        ddp = DDP(model, process_group=group, bucket_cap_mb=cap)
        losses = []
        for step in range(STEPS):
            x, y = (share(a, group.rank, group.size) for a in batch(step))
            loss = loss_of(ddp, x, y)
            loss.backward()
            losses.append(loss.item())
            descend(model)
        return losses, {n: p.detach().numpy().copy() for n, p in model.named_parameters()}

    results = run_threads(train, world, timeout=60)
    losses, params = serial()
    np.testing.assert_allclose(np.mean([r[0] for r in results], axis=0), losses, rtol=1e-12)
    for name, expected in params.items():
        for _, got in results:
            np.testing.assert_array_equal(got[name], results[0][1][name])  # replicas agree to the bit
        np.testing.assert_allclose(results[0][1][name], expected, rtol=1e-10, atol=1e-12)


def test_gradients_are_views_of_the_buckets_and_stay_so():
    def run(group):
        ddp = DDP(Net(), process_group=group)
        for step in range(3):
            for p in ddp.parameters():
                p.grad = None
            loss_of(ddp, *(share(a, group.rank, 2) for a in batch(step))).backward()
            flats = ddp.reducer.flats
            for p in ddp.parameters():
                assert any(np.shares_memory(p.grad.numpy(), flat) for flat in flats)
        return True

    assert run_threads(run, 2) == [True, True]


def test_no_sync_accumulates_and_the_next_backward_averages_everything():
    def run(group):
        ddp = DDP(Net(), process_group=group)
        x, y = (share(a, group.rank, 2) for a in batch(0))
        half = len(x) // 2
        with ddp.no_sync():
            (loss_of(ddp, x[:half], y[:half]) / 2).backward()
            local = ddp.module.first.grad.numpy().copy()
        (loss_of(ddp, x[half:], y[half:]) / 2).backward()
        return local, ddp.module.first.grad.numpy().copy()

    (local0, grad0), (local1, grad1) = run_threads(run, 2)
    assert not np.allclose(local0, local1)
    np.testing.assert_array_equal(grad0, grad1)
    model = Net()
    loss_of(model, *(dtrain.tensor(a) for a in batch(0))).backward()
    np.testing.assert_allclose(grad0, model.first.grad.numpy(), rtol=1e-10)


def test_gradients_kept_between_steps_accumulate():
    def run(group):
        ddp = DDP(Net(), process_group=group)
        for _ in range(2):
            loss_of(ddp, *(share(a, group.rank, 2) for a in batch(0))).backward()
        return ddp.module.second.grad.numpy().copy()

    got = run_threads(run, 2)
    model = Net()
    loss_of(model, *(dtrain.tensor(a) for a in batch(0))).backward()
    np.testing.assert_allclose(got[0], 2 * model.second.grad.numpy(), rtol=1e-10)


def test_buffers_follow_rank_0():
    def run(group):
        ddp = DDP(Net(), process_group=group)
        ddp.module.seen.fill_(float(group.rank + 5))
        loss_of(ddp, *(share(a, group.rank, 2) for a in batch(0))).backward()
        return ddp.module.seen.tolist()

    assert run_threads(run, 2) == [[5.0] * 3] * 2


class Branches(Module):
    """Uses one branch or the other."""

    def __init__(self):
        super().__init__()
        self.left = Parameter(dtrain.ones(2, dtype=dtrain.float64))
        self.right = Parameter(dtrain.ones(2, dtype=dtrain.float64))
        self.never = Parameter(dtrain.ones(2, dtype=dtrain.float64))

    def forward(self, x, left):
        return x * (self.left if left else self.right)


def test_unused_parameters_are_named():
    def run(group):
        ddp = DDP(Branches(), process_group=group)
        ddp(dtrain.ones(2, dtype=dtrain.float64), True).sum().backward()

    with pytest.raises(DistributedError, match="2 of 3 parameters: right, never.*find_unused_parameters"):
        run_threads(run, 2)


def test_find_unused_parameters_averages_what_some_ranks_used():
    def run(group):
        ddp = DDP(Branches(), process_group=group, find_unused_parameters=True)
        for _ in range(3):
            for p in ddp.parameters():
                p.grad = None
            ddp(dtrain.ones(2, dtype=dtrain.float64), group.rank == 0).sum().backward()
        model = ddp.module
        return model.left.grad.tolist(), model.right.grad.tolist(), model.never.grad

    assert run_threads(run, 2) == [([0.5, 0.5], [0.5, 0.5], None)] * 2


def test_models_that_differ_are_refused_by_name():
    def run(group):
        model = Net()
        if group.rank == 1:
            model.second = Parameter(dtrain.zeros(10, 4, dtype=dtrain.float64))
        DDP(model, process_group=group)

    with pytest.raises(DistributedError, match=r"'second' \(10, 3\).*\(10, 4\)"):
        run_threads(run, 2)


def test_two_backwards_for_one_forward_are_explained():
    def run(group):
        ddp = DDP(Branches(), process_group=group, find_unused_parameters=True)
        y = ddp(dtrain.ones(2, dtype=dtrain.float64), True)
        y.sum().backward(retain_graph=True)
        y.sum().backward()  # after the reduction: adds this rank's gradient alone, as PyTorch would not
        return True

    with pytest.raises(DistributedError, match="without a forward"):
        run_threads(run, 2)


def test_state_dict_has_the_modules_own_names_and_loads_with_a_prefix():
    def run(group):
        ddp = DDP(Net(), process_group=group)
        names = list(ddp.state_dict())
        other = DDP(Net(seed=9), process_group=group)
        other.load_state_dict({f"module.{k}": v for k, v in ddp.state_dict().items()})
        return names, np.array_equal(other.module.first.detach().numpy(), ddp.module.first.detach().numpy())

    names, same = run_threads(run, 1)[0]
    assert names == ["first", "second", "shared", "scale", "seen"] and same


def test_frozen_parameters_are_left_out():
    def run(group):
        model = Net()
        model.shared.requires_grad_(False)
        ddp = DDP(model, process_group=group)
        loss_of(ddp, *(share(a, group.rank, 2) for a in batch(0))).backward()
        return model.shared.grad

    assert run_threads(run, 2) == [None, None]
